"""The engine, on sources made up for it. Nothing here imports torch or transformers."""
