"""What an output must hold, what it holds, and the difference."""
