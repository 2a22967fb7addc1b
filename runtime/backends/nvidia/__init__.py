"""NVIDIA GPUs: TensorRT and TensorRT-RTX, from the graph to the engine on a device."""
