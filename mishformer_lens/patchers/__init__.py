"""What is known of each model family and each release of transformers: data, and the resolver that picks from it."""

from mishformer_lens.patchers import gpt2, gpt_neox
from mishformer_lens.patchers.family import Family, Variant

FAMILIES: dict[str, Family] = {family.name: family for family in (gpt2.FAMILY, gpt_neox.FAMILY)}
"""Every family, by its name."""

__all__ = ["FAMILIES", "Family", "Variant"]
