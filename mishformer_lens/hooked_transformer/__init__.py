"""TransformerLens's ``HookedTransformer``, running on HuggingFace's own model. Importing it imports torch."""

from mishformer_lens.hooked_transformer.config import HookedTransformerConfig
from mishformer_lens.hooked_transformer.model import HookedTransformer

__all__ = ["HookedTransformer", "HookedTransformerConfig"]
