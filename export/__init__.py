"""From a checkpoint to an ONNX model with its card."""
