"""Games: the last pass of a frame, in process and across processes."""
