"""Resuming of interrupted runs: the journal and the segments beside an output."""
