"""StarCoder2: what its models have in every release."""

from mishformer_lens.patchers.family import Family
from mishformer_lens.patchers.llama_like import attention_classes, forms
from mishformer_lens.patchers.parts import Attention, Norm

FAMILY = Family(
    name="starcoder2",
    base_model="Starcoder2Model",
    components={
        "blocks": "layers",
        "ln_final": "norm",
        "attn": "self_attn",
        "mlp": "mlp",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    },
    norm=Norm("layer", own=False),
    attention=Attention(
        rotary=True, n_heads="config.num_attention_heads", n_key_value_heads="config.num_key_value_heads"
    ),
    template="llama_like",
    prefix="Starcoder2",
    forms={
        **forms.SPLIT_PROJECTIONS,
        "MLP.forward": [("self.act(hidden_states)", "self.hook_post(self.act(self.hook_pre(hidden_states)))")],
        **forms.PRE_NORM_LAYER,
        **forms.EMBEDDING,
    },
    class_forms=attention_classes.FLASH_REPEATED,
)
