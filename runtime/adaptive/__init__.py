"""Models that keep a deadline: what may be done to a frame, and who chooses."""
