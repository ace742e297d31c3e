"""The contract of the hook points, written out a second time: names, shapes, and what each activation is made of.

The package has its own table; this one is what the tests hold it to.
"""

import dataclasses
import functools

from tests.models import BATCH, D_HEAD, D_MLP, D_MODEL, N_HEADS, N_LAYERS, POS

SIZES = {"B": BATCH, "P": POS, "K": POS, "H": N_HEADS, "D": D_MODEL, "d": D_HEAD, "M": D_MLP, "1": 1}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One hook point.

    Attributes:
        axes: one letter per axis; see SIZES.
        sources: names of the activations that it is computed from.
        kinds: the kinds of model that have it; all, if empty.
        flagged: whether TransformerLens computes it only if a flag is set.
    """

    axes: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    flagged: bool = False


NEOX = ("gpt_neox", "gpt_neox_sequential")
SEQUENTIAL = ("gpt2", "gpt_neox_sequential")

# {in} is the residual stream that comes in, {mid} the one that the MLP branch reads.
_BLOCK = {
    "hook_resid_pre": Entry("BPD", ("{in}",)),
    "hook_attn_in": Entry("BPHD", ("hook_resid_pre",), flagged=True),
    "hook_q_input": Entry("BPHD", ("hook_resid_pre",), flagged=True),
    "hook_k_input": Entry("BPHD", ("hook_resid_pre",), flagged=True),
    "hook_v_input": Entry("BPHD", ("hook_resid_pre",), flagged=True),
    "ln1.hook_scale": Entry("BP1", ("hook_resid_pre", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input")),
    "ln1.hook_normalized": Entry(
        "BPD", ("hook_resid_pre", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "ln1.hook_scale")
    ),
    "attn.hook_q": Entry(
        "BPHd", ("hook_resid_pre", "hook_attn_in", "hook_q_input", "ln1.hook_scale", "ln1.hook_normalized")
    ),
    "attn.hook_k": Entry(
        "BPHd", ("hook_resid_pre", "hook_attn_in", "hook_k_input", "ln1.hook_scale", "ln1.hook_normalized")
    ),
    "attn.hook_v": Entry(
        "BPHd", ("hook_resid_pre", "hook_attn_in", "hook_v_input", "ln1.hook_scale", "ln1.hook_normalized")
    ),
    "attn.hook_rot_q": Entry("BPHd", ("attn.hook_q",), NEOX),
    "attn.hook_rot_k": Entry("BPHd", ("attn.hook_k",), NEOX),
    "attn.hook_attn_scores": Entry("BHPK", ("attn.hook_q", "attn.hook_k", "attn.hook_rot_q", "attn.hook_rot_k")),
    "attn.hook_pattern": Entry("BHPK", ("attn.hook_attn_scores",)),
    "attn.hook_z": Entry(
        "BPHd",
        ("attn.hook_pattern", "attn.hook_v", "attn.hook_q", "attn.hook_k", "attn.hook_rot_q", "attn.hook_rot_k"),
    ),
    "attn.hook_result": Entry("BPHD", ("attn.hook_z",), flagged=True),
    "hook_attn_out": Entry("BPD", ("attn.hook_z", "attn.hook_result")),
    "hook_resid_mid": Entry("BPD", ("hook_resid_pre", "hook_attn_out"), SEQUENTIAL),
    "hook_mlp_in": Entry("BPD", ("{mid}",), flagged=True),
    "ln2.hook_scale": Entry("BP1", ("{mid}", "hook_mlp_in")),
    "ln2.hook_normalized": Entry("BPD", ("{mid}", "hook_mlp_in", "ln2.hook_scale")),
    "mlp.hook_pre": Entry("BPM", ("ln2.hook_normalized",)),
    "mlp.hook_post": Entry("BPM", ("mlp.hook_pre",)),
    "hook_mlp_out": Entry("BPD", ("mlp.hook_post",)),
    "hook_resid_post": Entry("BPD", ("hook_resid_pre", "hook_attn_out", "{mid}", "hook_mlp_out")),
}


@functools.cache
def contract(kind: str) -> dict[str, Entry]:
    """Every hook point of a kind of model, in the order in which they fire; names as TransformerLens has them."""
    table = {"hook_embed": Entry("BPD", ())}
    stream: tuple[str, ...] = ("hook_embed",)
    if kind == "gpt2":
        table["hook_pos_embed"] = Entry("BPD", ())
        stream = ("hook_embed", "hook_pos_embed")
    for index in range(N_LAYERS):
        prefix = f"blocks.{index}."
        middle = prefix + ("hook_resid_mid" if kind in SEQUENTIAL else "hook_resid_pre")
        for name, entry in _BLOCK.items():
            if not entry.kinds or kind in entry.kinds:
                table[prefix + name] = dataclasses.replace(entry, sources=_sources(entry, prefix, stream, middle))
        stream = (prefix + "hook_resid_post",)
    table["ln_final.hook_scale"] = Entry("BP1", stream)
    table["ln_final.hook_normalized"] = Entry("BPD", (*stream, "ln_final.hook_scale"))
    return table


def _sources(entry: Entry, prefix: str, stream: tuple[str, ...], middle: str) -> tuple[str, ...]:
    places = {"{in}": stream, "{mid}": (middle,)}
    return tuple(name for source in entry.sources for name in places.get(source, (prefix + source,)))


def unflagged(kind: str) -> list[str]:
    """The hook points that fire in TransformerLens with every flag off."""
    return [name for name, entry in contract(kind).items() if not entry.flagged]


def flagged(kind: str) -> list[str]:
    """The hook points that TransformerLens leaves silent until a flag is set."""
    return [name for name, entry in contract(kind).items() if entry.flagged]


def is_split_input(name: str) -> bool:
    """Whether queries, keys and values have their own inputs while this hook point is on: ``ln1`` then runs thrice."""
    return name.endswith(("hook_q_input", "hook_k_input", "hook_v_input"))


def shape(kind: str, name: str) -> tuple[int, ...]:
    """The shape of an activation in a plain forward pass over BATCH x POS tokens."""
    return tuple(SIZES[axis] for axis in contract(kind)[name].axes)


def reached_from(kind: str, edited: str) -> set[str]:
    """The activations that an edit of ``edited`` changes, itself not among them."""
    reached, carrying = {edited}, {edited}
    for name, entry in contract(kind).items():
        # The table is in the order of computation, so one pass finds everything.
        if carrying & set(entry.sources):
            reached.add(name)
            # The layer norm of a split input runs once for each of query, key and value: only one of the three changes.
            if not (is_split_input(edited) and name.startswith(block_of(edited) + "ln1.")):
                carrying.add(name)
    return reached - {edited}


def block_of(name: str) -> str:
    """``blocks.1.`` for a name in the second block; nothing for a name outside the blocks."""
    return ".".join(name.split(".")[:2]) + "." if name.startswith("blocks.") else ""
