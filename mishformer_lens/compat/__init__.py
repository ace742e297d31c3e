"""What works with which release of transformers: read from the releases' sources, and from recorded runs.

Nothing here imports torch or transformers.
"""
