"""The commands and their options; their work is in `jobs`."""
