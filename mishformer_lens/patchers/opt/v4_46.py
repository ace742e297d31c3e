"""OPT as in 4.44, but with a class for sdpa."""

from mishformer_lens.patchers.opt import shared, v4_44

CACHE_ARGUMENT = v4_44.CACHE_ARGUMENT
CACHE_BY_PLACE = v4_44.CACHE_BY_PLACE
ATTENTION = ("eager", "sdpa", "flash_attention_2")
UNSUPPORTED = {"flex_attention": v4_44.UNSUPPORTED["flex_attention"]}

EDITS = {
    **v4_44.EAGER_AND_FLASH,
    "OPTSdpaAttention.forward": [*v4_44.PROJECTIONS, *shared.SDPA],
    **shared.LAYER,
    **shared.model("pos_embeds"),
}
