"""The hook points that an instrumented model has: TransformerLens's names, axes and order.

They are those of TransformerLens's ``HookedTransformer`` without weight processing: of 2.x, and of the release that
first had the family where that is later.
"""

import dataclasses
from collections.abc import Collection

from mishformer_lens.patchers.parts import MLP, Attention, Block, Experts


@dataclasses.dataclass(frozen=True)
class HookSpec:
    """One hook point, or one per block.

    Attributes:
        name: TransformerLens's name; inside a block, the part after ``blocks.{i}.``.
        axes: the axes of the activation, in the order in which hooks see them.
        flag: TransformerLens's configuration flag without which its own models leave this hook point silent.
            Here the activation is computed whenever a hook is attached, whatever the flag says.
        taken_by: another part of the block whose patched code computes with what hooks made of the activation, or
            calls the part that it is in.
        shared: whether others than what comes next have the activation, as who gave ``inputs_embeds``, or the
            ``hidden_states`` that a model returns: an edit in place is not to reach them.
    """

    name: str
    axes: str
    flag: str | None = None
    taken_by: str | None = None
    shared: bool = False

    @property
    def part(self) -> str:
        """The part of the block that it is in, as ``attn``; empty for the block itself."""
        return self.name.rpartition(".")[0]

    @property
    def is_of_expert(self) -> bool:
        """Whether it is inside one of a mixture's experts."""
        return self.name.startswith(f"{EXPERTS}.")


RESIDUAL = "batch pos d_model"
PER_HEAD = "batch pos head_index d_head"
PER_KEY_VALUE_HEAD = "batch pos kv_head_index d_head"
PER_ENCODER_HEAD = "batch encoder_pos head_index d_head"
SCORES = "batch head_index query_pos key_pos"
ENCODER_SCORES = "batch head_index query_pos encoder_pos"
COPY_PER_HEAD = "batch pos head_index d_model"
COPY_PER_KEY_VALUE_HEAD = "batch pos kv_head_index d_model"
SCALE = "batch pos 1"
NEURONS = "batch pos d_mlp"
# A mixture of experts sees the tokens of all texts in one row, and each expert those that chose it.
WEIGHTS = "batch*pos expert"
CHOICES = "batch*pos choice"
SHARED_EXPERT_NEURONS = "batch*pos d_mlp"
EXPERT_NEURONS = "token d_mlp"

EXPERTS = "mlp.experts"
EXPERT_HOOKS = {"hook_gate": "hook_pre", "hook_pre": "hook_pre_linear", "hook_post": "hook_post"}
"""TransformerLens's names inside an expert, and how the same is called in an MLP that is none."""
SHARED_EXPERTS = ("mlp.shared_expert", "mlp.shared_experts")

EMBED = HookSpec("hook_embed", RESIDUAL, shared=True)
POS_EMBED = HookSpec("hook_pos_embed", RESIDUAL)
EMBED_NORM = (HookSpec("embed.ln.hook_scale", SCALE), HookSpec("embed.ln.hook_normalized", RESIDUAL))
FINAL = (HookSpec("ln_final.hook_scale", SCALE), HookSpec("ln_final.hook_normalized", RESIDUAL))

_QUERY_KEY_NORM = {
    "pos head": ("batch pos {heads} 1", "batch pos {heads} d_head"),
    "head pos": ("batch pos {heads} 1", "batch pos {heads} d_head"),
    "joined": (SCALE, "batch pos {heads}*d_head"),
    "each head": ("batch pos {heads} 1", "batch pos {heads} d_head"),
}


def block_hooks(
    parts: Collection[str],
    attention: Attention,
    mlp: MLP,
    block: Block,
    experts: Experts | None = None,
    n_experts: int | None = None,
) -> tuple[HookSpec, ...]:
    """The hook points of a block, in the order in which they fire.

    Args:
        parts: TransformerLens's names of the parts that blocks of the family may have.
        n_experts: how many experts the block has. None: all that blocks of the family may have, with ``{e}`` for the
            number of an expert.
    """
    grouped = attention.n_key_value_heads is not None
    before, after, stream = (_norm if block.norms == place else _nothing for place in ("before", "after", "stream"))
    crosses = "cross_attn" in parts
    mlp_norm = "ln3" if crosses else "ln2"
    key_value, copies = (PER_KEY_VALUE_HEAD, COPY_PER_KEY_VALUE_HEAD) if grouped else (PER_HEAD, COPY_PER_HEAD)
    specs = [
        HookSpec("hook_resid_pre", RESIDUAL, shared=True),
        HookSpec("hook_attn_in", COPY_PER_HEAD, "use_attn_in", "attn"),
        HookSpec("hook_q_input", COPY_PER_HEAD, "use_split_qkv_input", "attn"),
        HookSpec("hook_k_input", copies, "use_split_qkv_input", "attn"),
        HookSpec("hook_v_input", copies, "use_split_qkv_input", "attn"),
        *before("ln1"),
        *_projected(attention, key_value),
        *((HookSpec("attn.hook_rot_q", PER_HEAD), HookSpec("attn.hook_rot_k", key_value)) if attention.rotary else ()),
        HookSpec("attn.hook_attn_scores", SCORES),
        HookSpec("attn.hook_pattern", SCORES),
        HookSpec("attn.hook_z", PER_HEAD),
        HookSpec("attn.hook_result", COPY_PER_HEAD, "use_attn_result"),
        *after("ln1"),
        *_norm("ln1_post"),
        HookSpec("hook_attn_out", RESIDUAL),
        *stream("ln1"),
        HookSpec("hook_resid_mid", RESIDUAL),
        *(_cross_attention() if crosses else ()),
        HookSpec("hook_mlp_in", RESIDUAL, "use_hook_mlp_in"),
        *before(mlp_norm),
        *_mlp_or_mixture(parts, mlp, experts, n_experts),
        *after("ln2"),
        *_norm("ln2_post"),
        HookSpec("hook_mlp_out", RESIDUAL),
        *stream("ln2"),
        HookSpec("hook_resid_post", RESIDUAL),
    ]
    missing = {"hook_resid_mid"} if block.parallel is True else set()
    known = {"", *parts}
    return tuple(spec for spec in specs if (spec.is_of_expert or spec.part in known) and spec.name not in missing)


def _mlp_or_mixture(
    parts: Collection[str], mlp: MLP, experts: Experts | None, n_experts: int | None
) -> tuple[HookSpec, ...]:
    if experts is None or n_experts == 0:
        return _mlp("mlp", mlp, NEURONS)
    numbers = ["{e}"] if n_experts is None else list(range(n_experts))
    mixture = [
        HookSpec("mlp.hook_expert_weights", WEIGHTS, taken_by="mlp"),
        # In place, an edit would reach what the gradient of the weights is told from.
        HookSpec("mlp.hook_expert_indices", CHOICES, shared=True),
        *(
            HookSpec(f"{EXPERTS}.{number}.{hook}", EXPERT_NEURONS, taken_by="mlp")
            for number in numbers
            for hook in EXPERT_HOOKS
        ),
    ]
    shared = [
        dataclasses.replace(spec, taken_by="mlp")
        for part in parts
        if part in SHARED_EXPERTS
        for spec in _mlp(part, mlp, SHARED_EXPERT_NEURONS)
    ]
    whole = [*shared, *mixture] if experts.shared_first else [*mixture, *shared]
    dense = _mlp("mlp", mlp, NEURONS) if n_experts is None and not experts.in_every_block else ()
    return (*dense, *whole)


def _mlp(part: str, mlp: MLP, axes: str) -> tuple[HookSpec, ...]:
    hooks = ("hook_pre", "hook_pre_linear", "hook_post") if mlp.gated else ("hook_pre", "hook_post")
    return tuple(HookSpec(f"{part}.{hook}", axes) for hook in hooks)


def _norm(name: str) -> tuple[HookSpec, ...]:
    return HookSpec(f"{name}.hook_scale", SCALE), HookSpec(f"{name}.hook_normalized", RESIDUAL)


def _nothing(_name: str) -> tuple[HookSpec, ...]:
    return ()


def _cross_attention() -> tuple[HookSpec, ...]:
    """Attention to what an encoder gave, as in the decoder of TransformerLens's ``HookedEncoderDecoder``.

    There, too, ``ln2`` is its norm, and that of the MLP ``ln3``.
    """
    return (
        HookSpec("hook_cross_attn_in", RESIDUAL, "use_attn_in"),
        *_norm("ln2"),
        HookSpec("cross_attn.hook_q", PER_HEAD),
        HookSpec("cross_attn.hook_k", PER_ENCODER_HEAD),
        HookSpec("cross_attn.hook_v", PER_ENCODER_HEAD),
        HookSpec("cross_attn.hook_attn_scores", ENCODER_SCORES),
        HookSpec("cross_attn.hook_pattern", ENCODER_SCORES),
        HookSpec("cross_attn.hook_z", PER_HEAD),
        HookSpec("cross_attn.hook_result", COPY_PER_HEAD, "use_attn_result"),
        HookSpec("hook_cross_attn_out", RESIDUAL),
        HookSpec("hook_resid_mid_cross", RESIDUAL),
    )


def _projected(attention: Attention, key_value: str) -> list[HookSpec]:
    """Queries, keys and values, and the norms of queries and keys."""
    query, key, value = (
        HookSpec(f"attn.hook_{letter}", axes) for letter, axes in (("q", PER_HEAD), ("k", key_value), ("v", key_value))
    )
    key_heads = "head_index" if attention.n_key_value_heads is None else "kv_head_index"
    of_query = _query_key_norm(attention, "q", "head_index")
    of_key = _query_key_norm(attention, "k", key_heads)
    if attention.norms_in_turn:
        return [query, *of_query, key, *of_key, value]
    return [query, key, value, *of_query, *of_key]


def _query_key_norm(attention: Attention, letter: str, heads: str) -> list[HookSpec]:
    if attention.query_key_norm is None:
        return []
    axes = _QUERY_KEY_NORM[attention.query_key_norm]
    return [
        HookSpec(f"attn.{letter}_norm.{hook}", each.format(heads=heads))
        for hook, each in zip(("hook_scale", "hook_normalized"), axes, strict=True)
    ]
