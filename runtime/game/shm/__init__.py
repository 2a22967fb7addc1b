"""Frames between processes through shared memory."""
