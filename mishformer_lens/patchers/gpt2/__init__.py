"""GPT-2: what its models have in every release."""

from mishformer_lens.patchers import contract
from mishformer_lens.patchers.family import Family

FAMILY = Family(
    name="gpt2",
    base_model="GPT2Model",
    components={
        "blocks": "h",
        "ln_final": "ln_f",
        "attn": "attn",
        "mlp": "mlp",
        "ln1": "ln_1",
        "ln2": "ln_2",
    },
    embedding_hooks=(contract.EMBED, contract.POS_EMBED),
    block_hooks=(*contract.BEFORE_ATTENTION, *contract.ATTENTION, contract.RESID_MID, *contract.AFTER_ATTENTION),
    final_hooks=contract.FINAL,
    qkv_layout="part head d_head",
    head_size="head_dim",
    n_heads="num_heads",
)
