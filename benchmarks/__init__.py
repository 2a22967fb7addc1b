"""Measurements behind the README's claims; `python -m benchmarks` writes them to results/ as JSON."""
