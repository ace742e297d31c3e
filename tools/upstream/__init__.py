"""HuggingFace's own tests of its models, run on plain models and on hooked ones, and compared."""
