"""The hook points that an instrumented model has: TransformerLens's names, axes and order.

They are those of TransformerLens 2.x's ``HookedTransformer`` without weight processing.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class HookSpec:
    """One hook point, or one per block.

    Attributes:
        name: TransformerLens's name; inside a block, the part after ``blocks.{i}.``.
        axes: the axes of the activation, in the order in which hooks see them.
        flag: TransformerLens's configuration flag without which its own models leave this hook point silent.
            Here the activation is computed whenever a hook is attached, whatever the flag says.
        taken_by: another part of the block whose patched code computes with what hooks made of the activation.
    """

    name: str
    axes: str
    flag: str | None = None
    taken_by: str | None = None


RESIDUAL = "batch pos d_model"
PER_HEAD = "batch pos head_index d_head"
SCORES = "batch head_index query_pos key_pos"
COPY_PER_HEAD = "batch pos head_index d_model"
SCALE = "batch pos 1"
NEURONS = "batch pos d_mlp"

EMBED = HookSpec("hook_embed", RESIDUAL)
POS_EMBED = HookSpec("hook_pos_embed", RESIDUAL)

BEFORE_ATTENTION = (
    HookSpec("hook_resid_pre", RESIDUAL),
    HookSpec("hook_attn_in", COPY_PER_HEAD, "use_attn_in", "attn"),
    HookSpec("hook_q_input", COPY_PER_HEAD, "use_split_qkv_input", "attn"),
    HookSpec("hook_k_input", COPY_PER_HEAD, "use_split_qkv_input", "attn"),
    HookSpec("hook_v_input", COPY_PER_HEAD, "use_split_qkv_input", "attn"),
    HookSpec("ln1.hook_scale", SCALE),
    HookSpec("ln1.hook_normalized", RESIDUAL),
    HookSpec("attn.hook_q", PER_HEAD),
    HookSpec("attn.hook_k", PER_HEAD),
    HookSpec("attn.hook_v", PER_HEAD),
)
ROTARY = (HookSpec("attn.hook_rot_q", PER_HEAD), HookSpec("attn.hook_rot_k", PER_HEAD))
ATTENTION = (
    HookSpec("attn.hook_attn_scores", SCORES),
    HookSpec("attn.hook_pattern", SCORES),
    HookSpec("attn.hook_z", PER_HEAD),
    HookSpec("attn.hook_result", COPY_PER_HEAD, "use_attn_result"),
    HookSpec("hook_attn_out", RESIDUAL),
)
RESID_MID = HookSpec("hook_resid_mid", RESIDUAL)
AFTER_ATTENTION = (
    HookSpec("hook_mlp_in", RESIDUAL, "use_hook_mlp_in"),
    HookSpec("ln2.hook_scale", SCALE),
    HookSpec("ln2.hook_normalized", RESIDUAL),
    HookSpec("mlp.hook_pre", NEURONS),
    HookSpec("mlp.hook_post", NEURONS),
    HookSpec("hook_mlp_out", RESIDUAL),
    HookSpec("hook_resid_post", RESIDUAL),
)
FINAL = (HookSpec("ln_final.hook_scale", SCALE), HookSpec("ln_final.hook_normalized", RESIDUAL))
