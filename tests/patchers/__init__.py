"""The resolver, on made-up families. Nothing here imports torch or transformers."""
