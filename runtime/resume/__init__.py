"""Runs that are cut off go on: the journal and the segments beside an output."""
