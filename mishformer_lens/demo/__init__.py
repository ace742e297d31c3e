"""``mishformer-lens demo``: the main job of this library, on a real checkpoint, step by step."""
