"""OPT with the attention functions of all models."""

from mishformer_lens.patchers.llama_like import v4_48 as llama_like
from mishformer_lens.patchers.llama_like.forms import INTO_HEADS
from mishformer_lens.patchers.opt import shared

CACHE_ARGUMENT = "past_key_values"
CACHE_BY_PLACE = False
ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
UNSUPPORTED = {
    "flex_attention with a cache": "these releases of transformers fail there, hooked or not",
    "layer_norm_elementwise_affine=False": "transformers 4.52 to 4.57 cannot make such a model, hooked or not",
}

EDITS = {
    "eager_attention_forward": llama_like.EAGER,
    "OPTAttention.forward": [*INTO_HEADS, llama_like.CALL, shared.OUT],
    **shared.LAYER,
    **shared.model("pos_embeds.to(inputs_embeds.device)"),
}
