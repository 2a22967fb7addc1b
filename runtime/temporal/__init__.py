"""Results that stay with what moves: where each pixel was, what was shown there, and what was not."""
