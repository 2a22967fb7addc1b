"""Training with the VGG perceptual loss."""
