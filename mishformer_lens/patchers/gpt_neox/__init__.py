"""GPT-NeoX (and Pythia): what its models have in every release."""

from mishformer_lens.patchers import contract
from mishformer_lens.patchers.family import Family

FAMILY = Family(
    name="gpt_neox",
    base_model="GPTNeoXModel",
    components={
        "blocks": "layers",
        "ln_final": "final_layer_norm",
        "attn": "attention",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    embedding_hooks=(contract.EMBED,),
    block_hooks=(
        *contract.BEFORE_ATTENTION,
        *contract.ROTARY,
        *contract.ATTENTION,
        contract.RESID_MID,
        *contract.AFTER_ATTENTION,
    ),
    final_hooks=contract.FINAL,
    qkv_layout="head part d_head",
    parallel_switch="use_parallel_residual",
    head_size="head_size",
    n_heads=None,
)
