"""Where each family keeps the parts that TransformerLens has names for."""

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names of HuggingFace modules: the embeddings seen from the base model, the others from a block.

    ``head_size`` is the attribute of the attention that has the size of a head.
    """

    embed: str
    pos_embed: str | None
    qkv: str
    output: str
    mlp_in: str
    mlp_out: str
    head_size: str


LAYOUTS: Final = {
    "gpt2": Layout("wte", "wpe", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "head_dim"),
    "gpt_neox": Layout(
        "embed_in",
        None,
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
        "head_size",
    ),
}
