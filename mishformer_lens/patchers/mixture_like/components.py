"""What descriptions of families with mixtures of experts have in common: what they call the parts of a mixture."""

from mishformer_lens.patchers.llama_like.components import COMPONENTS

MIXTURE = {**COMPONENTS, "mlp.router": "mlp.gate", "mlp.experts": "mlp.experts"}
"""TransformerLens's name of a part to HuggingFace's, in releases where all experts are one module."""

PARTS = ("mlp.router", "mlp.experts")
"""What mixtures lack in releases where each expert is a module; and what blocks with an MLP lack."""
