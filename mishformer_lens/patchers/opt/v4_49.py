"""OPT as in 4.46, but with cache objects, and heads apart in eager attention."""

from mishformer_lens.patchers.llama_like.attention_classes import PATTERN
from mishformer_lens.patchers.llama_like.forms import INTO_HEADS
from mishformer_lens.patchers.opt import shared, v4_46

CACHE_ARGUMENT = v4_46.CACHE_ARGUMENT
CACHE_BY_PLACE = False
ATTENTION = v4_46.ATTENTION
UNSUPPORTED = v4_46.UNSUPPORTED

EDITS = {
    "OPTAttention.forward": [
        *INTO_HEADS,
        *PATTERN["pattern"],
        (
            "attn_output.transpose(1, 2).contiguous()",
            "self.hook_z(attn_output.transpose(1, 2).contiguous())",
        ),
        shared.OUT,
    ],
    "OptFlashAttention2.forward": [*INTO_HEADS, *shared.FLASH],
    "OPTSdpaAttention.forward": [*INTO_HEADS, *shared.SDPA],
    **shared.LAYER,
    **shared.model("pos_embeds.to(inputs_embeds.device)"),
}
