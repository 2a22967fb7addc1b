"""Models that keep a deadline: the ladder of ways to process a frame, and the governor that chooses."""
