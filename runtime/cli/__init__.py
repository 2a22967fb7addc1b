"""The commands and their options; what they do stands in `jobs`."""
