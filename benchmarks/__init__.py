"""Measurements behind the documents' claims; `python -m benchmarks` writes them to results/ as JSON."""
