"""GPT-J: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.parts import Attention, Block, Norm

FAMILY = Family(
    name="gptj",
    base_model="GPTJModel",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "attn",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_1",
    },
    norm=Norm("layer", own=False),
    attention=Attention(rotary=True, n_heads="num_attention_heads"),
    block=Block(parallel=True, shared_norm=True),
)
