"""Temporal stability: where each pixel was before, the result shown there, and disoccluded areas."""
