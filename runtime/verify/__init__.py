"""Verification of outputs: the expected contents, the contents that are found, and their
differences."""
