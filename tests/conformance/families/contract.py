"""The contract of the hook points for every form of block, written out a second time.

The package derives its own from the families' descriptions; this one is what the tests hold it to.
"""

import dataclasses
import functools

from tests.kinds import Kind, kinds
from tests.models import BATCH, D_MODEL, N_HEADS, N_LAYERS, POS, Case


@dataclasses.dataclass(frozen=True)
class Entry:
    """One hook point.

    Attributes:
        shape: of the activation in a pass over BATCH x POS tokens; None for the number of tokens that chose an expert.
        sources: names of the activations that it is computed from.
        flagged: whether TransformerLens computes it only if a flag is set.
    """

    shape: tuple[int | None, ...]
    sources: tuple[str, ...]
    flagged: bool = False

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape is this one."""
        return len(shape) == len(self.shape) and all(
            expected in (None, found) for found, expected in zip(shape, self.shape, strict=True)
        )


SCORES = ("hook_attn_scores", "hook_pattern")
INTO = ("what goes into the block",)
COPIES = ("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")


@functools.cache
def contract(name: str) -> dict[str, Entry]:
    """Every hook point of a kind of model, in the order in which they fire."""
    kind = kinds()[name]
    stream: tuple[str, ...] = ("hook_embed", "hook_pos_embed") if kind.learned_positions else ("hook_embed",)
    table = _norm("embed.ln", (), (BATCH, POS, D_MODEL)) if kind.embedding_norm else {}
    table |= {each: Entry((BATCH, POS, D_MODEL), tuple(table)) for each in stream}
    for layer in range(N_LAYERS):
        prefix = f"blocks.{layer}."
        for each, entry in _block(kind, layer).items():
            sources = stream if entry.sources == INTO else tuple(prefix + source for source in entry.sources)
            table[prefix + each] = dataclasses.replace(entry, sources=sources)
        stream = (f"{prefix}hook_resid_post",)
    if not kind.final_norm:
        return table
    return table | {
        "ln_final.hook_scale": Entry((BATCH, POS, 1), stream),
        "ln_final.hook_normalized": Entry((BATCH, POS, D_MODEL), (*stream, "ln_final.hook_scale")),
    }


def _block(kind: Kind, layer: int) -> dict[str, Entry]:
    groups, heads = kind.key_value_heads, N_HEADS
    stream = (BATCH, POS, D_MODEL)
    of_queries, of_keys = (BATCH, POS, heads, kind.d_head), (BATCH, POS, groups, kind.d_head)
    copies, fewer_copies = (BATCH, POS, heads, D_MODEL), (BATCH, POS, groups, D_MODEL)
    scores, neurons = (BATCH, heads, POS, POS), (BATCH, POS, kind.d_mlp)
    ungrouped = groups == heads
    shared = ("hook_attn_in",) if ungrouped else ()
    before = kind.norms in ("before", "both")
    normalized = ("ln1.hook_scale", "ln1.hook_normalized") if before else ()
    table = {"hook_resid_pre": Entry(stream, INTO)}
    if ungrouped:
        table["hook_attn_in"] = Entry(copies, ("hook_resid_pre",), flagged=True)
    for letter, shape in (("q", copies), ("k", fewer_copies), ("v", fewer_copies)):
        table[f"hook_{letter}_input"] = Entry(shape, ("hook_resid_pre", *shared), flagged=True)
    inputs = ("hook_resid_pre", *shared, "hook_q_input", "hook_k_input", "hook_v_input")
    if before:
        table |= _norm("ln1", inputs, stream)
    for letter, shape in (("q", of_queries), ("k", of_keys), ("v", of_keys)):
        sources = ("hook_resid_pre", *shared, f"hook_{letter}_input", *normalized)
        table[f"attn.hook_{letter}"] = Entry(shape, sources)
        if kind.norms_in_turn and letter != "v":
            table |= _query_key_norm(kind, letter, shape)
    if not kind.norms_in_turn:
        table |= _query_key_norm(kind, "q", of_queries) | _query_key_norm(kind, "k", of_keys)
    rotated = ("attn.hook_rot_q", "attn.hook_rot_k") if kind.rotary else ("attn.hook_q", "attn.hook_k")
    for letter, shape in (("q", of_queries), ("k", of_keys)) if kind.rotary else ():
        norm = (f"attn.{letter}_norm.hook_normalized",) if kind.query_key_norm else (f"attn.hook_{letter}",)
        table[f"attn.hook_rot_{letter}"] = Entry(shape, norm)
    table["attn.hook_attn_scores"] = Entry(scores, rotated)
    table["attn.hook_pattern"] = Entry(scores, ("attn.hook_attn_scores",))
    attended = ("attn.hook_pattern", "attn.hook_v", *rotated)
    table["attn.hook_z"] = Entry(of_queries, attended)
    table["attn.hook_result"] = Entry(copies, ("attn.hook_z",), flagged=True)
    attention_out: tuple[str, ...] = ("attn.hook_z", "attn.hook_result")
    after = {"after": ("ln1", "ln2"), "both": ("ln1_post", "ln2_post")}.get(kind.norms)
    if after is not None:
        table |= _norm(after[0], attention_out, stream)
        attention_out = (f"{after[0]}.hook_normalized",)
    table["hook_attn_out"] = Entry(stream, attention_out)
    middle = "hook_resid_pre"
    if not kind.parallel:
        middle = "hook_resid_mid"
        goes_on = "ln1.hook_normalized" if kind.stream_from_norms else "hook_resid_pre"
        added: tuple[str, ...] = (goes_on, "hook_attn_out")
        if kind.norms == "stream":
            table |= _norm("ln1", added, stream)
            added = ("ln1.hook_scale", "ln1.hook_normalized")
        table[middle] = Entry(stream, added)
    table["hook_mlp_in"] = Entry(stream, (middle,), flagged=True)
    mlp_input: tuple[str, ...] = (middle, "hook_mlp_in")
    if before:
        table |= _norm("ln2", mlp_input, stream)
        mlp_input = ("ln2.hook_normalized",)
    mlp_out: tuple[str, ...] = ("mlp.hook_post",)
    if kind.is_mixture(layer):
        mixture = _mixture(kind, mlp_input)
        table |= mixture
        mlp_out = tuple(mixture)
    else:
        table |= _mlp("mlp", kind, neurons, mlp_input)
    if after is not None:
        table |= _norm(after[1], mlp_out, stream)
        mlp_out = (f"{after[1]}.hook_normalized",)
    table["hook_mlp_out"] = Entry(stream, mlp_out)
    goes_on = "ln2.hook_normalized" if kind.stream_from_norms else "hook_resid_mid"
    into = (goes_on,) if not kind.parallel else ("hook_resid_pre", "hook_attn_out")
    into = (*into, "hook_mlp_out")
    if kind.norms == "stream":
        table |= _norm("ln2", into, stream)
        into = ("ln2.hook_scale", "ln2.hook_normalized")
    table["hook_resid_post"] = Entry(stream, into)
    return table


def _mlp(name: str, kind: Kind, shape: tuple[int, ...], sources: tuple[str, ...]) -> dict[str, Entry]:
    into = [f"{name}.hook_pre", *([f"{name}.hook_pre_linear"] if kind.gated else [])]
    return {**{each: Entry(shape, sources) for each in into}, f"{name}.hook_post": Entry(shape, tuple(into))}


def _mixture(kind: Kind, sources: tuple[str, ...]) -> dict[str, Entry]:
    """Experts, of which each token goes to some; and one to which all go, where there is such."""
    tokens = BATCH * POS
    chosen_by = sources if kind.weights_after_choice else ("mlp.hook_expert_weights",)
    routed = {
        "mlp.hook_expert_weights": Entry((tokens, kind.experts), sources),
        "mlp.hook_expert_indices": Entry((tokens, kind.choices), chosen_by),
    }
    rows = (None, kind.d_expert)
    for number in range(kind.experts):
        gate, pre, post = (f"mlp.experts.{number}.{hook}" for hook in ("hook_gate", "hook_pre", "hook_post"))
        routed[gate] = routed[pre] = Entry(rows, (*sources, "mlp.hook_expert_indices"))
        routed[post] = Entry(rows, (gate, pre))
    if not kind.shared_expert:
        return routed
    shared = _mlp(f"mlp.{kind.shared_expert}", kind, (tokens, kind.d_shared), sources)
    return {**shared, **routed} if kind.shared_first else {**routed, **shared}


def _query_key_norm(kind: Kind, letter: str, shape: tuple[int, ...]) -> dict[str, Entry]:
    if not kind.query_key_norm:
        return {}
    flat = (*shape[:2], shape[2] * shape[3])
    return _norm(f"attn.{letter}_norm", (f"attn.hook_{letter}",), shape if kind.query_key_norm == "per head" else flat)


def _norm(name: str, sources: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, Entry]:
    return {
        f"{name}.hook_scale": Entry((*shape[:-1], 1), sources),
        f"{name}.hook_normalized": Entry(shape, (*sources, f"{name}.hook_scale")),
    }


def unflagged(kind: str) -> list[str]:
    """The hook points that fire in TransformerLens with every flag off."""
    return [name for name, entry in contract(kind).items() if not entry.flagged]


def of_one_block(case: Case) -> list[str]:
    """The hook points outside of the blocks and in one of them, where a pass for each of them all takes too long.

    The first block under eager attention and the last under a kernel: layers differ in some families.
    """
    layer = 0 if case.attention == "eager" else N_LAYERS - 1
    return [name for name in contract(case.kind) if block_of(name) in ("", f"blocks.{layer}.")]


def leaves_a_kernel(name: str, case: Case) -> bool:
    """Whether a layer leaves a kernel while somebody looks at a hook point."""
    if ".mlp.experts." in name:
        # In these tests experts are eager where attention is, as far as the release asks.
        return case.attention != "eager" or kinds()[case.kind].experts_together
    return case.attention != "eager" and name.endswith(SCORES)


def block_of(name: str) -> str:
    """``blocks.1.`` for a name in the second block; nothing for a name outside the blocks."""
    return ".".join(name.split(".")[:2]) + "." if name.startswith("blocks.") else ""


def is_split_input(name: str) -> bool:
    """Whether queries, keys and values have their own inputs while this hook point is on: ``ln1`` then runs thrice."""
    return name.endswith(("hook_q_input", "hook_k_input", "hook_v_input"))


def reached_from(kind: str, edited: str) -> set[str]:
    """The activations that an edit of ``edited`` changes, itself not among them."""
    reached, carrying = {edited}, {edited}
    for name, entry in contract(kind).items():
        # The table is in the order of computation, so one pass finds everything.
        if carrying & set(entry.sources):
            reached.add(name)
            # A norm before attention runs once for each of query, key and value: only one of the three changes.
            thrice = is_split_input(edited) and kinds()[kind].norms in ("before", "both")
            if not (thrice and name.startswith(f"{block_of(edited)}ln1.")):
                carrying.add(name)
    return reached - {edited}
