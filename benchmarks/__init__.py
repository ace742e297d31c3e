"""What hooks cost, as ratios to plain HuggingFace measured in the same run: `python -m benchmarks`."""
