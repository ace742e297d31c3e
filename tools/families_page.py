"""Makes and checks `docs/families.md`: what each family has, from the families' descriptions.

python -m tools.families_page             says whether the page is what the descriptions say
python -m tools.families_page --write     writes it
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mishformer_lens.patchers import FAMILIES, Family
from mishformer_lens.patchers.contract import HookSpec

PAGE = Path(__file__).resolve().parent.parent / "docs" / "families.md"

HEAD = """\
# Families

Made by `python -m tools.families_page --write` from the descriptions in `mishformer_lens/patchers/`; do not edit.
[What runs where](../compat/README.md); [what each hook point means](hooks.md).

`HookedTransformer` serves the families with a "yes" under *drop-in*; on the others it raises `UnsupportedModelError`,
and `mishformer_lens.instrument(model)` gives all the hook points below.
"""

HOOKS = """
## Hook points

B batch, P position (Q of queries, K of keys), H heads, G heads of keys and values where there are fewer, D `d_model`, d
`d_head`, M `d_mlp` or an expert's, E experts, k experts for each token, T tokens that chose expert `e`. Inside a block
the names follow `blocks.i.`. They are in the order in which they fire, but that `ln1` and `ln2` come after what they
normalise where norms stand after. A family that has a hook point in another shape has a line of its own. Those with a *
fire in TransformerLens with a flag only; those of a family with a ° are in some of its models.

| name | shape | in |
| --- | --- | --- |
"""

LETTERS = {
    "batch": "B",
    "pos": "P",
    "query_pos": "Q",
    "key_pos": "K",
    "head_index": "H",
    "kv_head_index": "G",
    "d_model": "D",
    "d_head": "d",
    "d_mlp": "M",
    "expert": "E",
    "choice": "k",
    "token": "T",
}


def make_page() -> str:
    """The page's text."""
    families = list(FAMILIES.values())
    return HEAD + "\n".join(["", *_family_rows(families)]) + "\n" + HOOKS + "\n".join(_hook_rows(families)) + "\n"


def _family_rows(families: Iterable[Family]) -> Iterator[str]:
    yield "| family | class | from | attention | norms | block | MLP | drop-in |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for family in families:
        cells = (
            family.name,
            f"`{family.base_model}`",
            family.first_release,
            ", ".join(family.variants[-1].attention),
            _norms(family),
            _block(family),
            _mlp(family),
            "no" if family.drop_in is None else "yes",
        )
        yield f"| {' | '.join(cells)} |"


def _norms(family: Family) -> str:
    places = "before and after" if "ln1_post" in family.components else family.block.norms
    own = {"layer": "layer norm", "rms": "RMS norm"}[family.norm.kind]
    queries = "" if family.attention.query_key_norm is None else ", of queries and keys too"
    return f"{own} {places}{queries}"


def _mlp(family: Family) -> str:
    kind = "gated" if family.mlp.gated else "plain"
    if family.experts is None:
        return kind
    return "experts" if family.experts.in_every_block else f"experts or {kind}"


def _block(family: Family) -> str:
    if isinstance(family.block.parallel, str):
        return f"parallel where `{family.block.parallel}`"
    if family.block.parallel:
        return "parallel, one norm" if family.block.shared_norm else "parallel"
    return "sequential"


def _hook_rows(families: list[Family]) -> Iterator[str]:
    found: dict[str, dict[str, list[Family]]] = {}
    flagged: set[str] = set()
    for family in families:
        for spec in specs_of(family):
            found.setdefault(spec.name, {}).setdefault(_shape(spec), []).append(family)
            if spec.flag is not None:
                flagged.add(spec.name)
    for name in _in_order(families):
        for shape, having in found[name].items():
            shown = _all_or_some(name, having, families)
            yield f"| `{name}`{' *' if name in flagged else ''} | {shape} | {shown} |"


def specs_of(family: Family) -> tuple[HookSpec, ...]:
    """All hook points of a family, in the order in which they fire."""
    return (*family.embedding_hooks, *family.block_hooks, *family.final_hooks)


def _in_order(families: Iterable[Family]) -> list[str]:
    """Every name once, each after those that come before it in the first family that has it."""
    order: list[str] = []
    for family in families:
        place = 0
        for spec in specs_of(family):
            if spec.name in order:
                place = order.index(spec.name) + 1
            else:
                order.insert(place, spec.name)
                place += 1
    return order


def _all_or_some(hook: str, having: list[Family], families: list[Family]) -> str:
    if having == families:
        return "all"
    without = [family.name for family in families if family not in having]
    if len(without) < len(having):
        return f"all but {', '.join(without)}"
    return ", ".join(f"{family.name}{'°' if _is_optional(hook, family) else ''}" for family in having)


def _is_optional(hook: str, family: Family) -> bool:
    """Whether some models or blocks of a family lack a hook point."""
    always = {spec.name for spec in family.hooks_of(frozenset(family.optional_in_blocks))}
    in_block = any(spec.name == hook for spec in family.block_hooks)
    return hook.rpartition(".")[0] in family.optional or (in_block and hook not in always)


def _shape(spec: HookSpec) -> str:
    return " ".join("·".join(LETTERS.get(part, part) for part in axis.split("*")) for axis in spec.axes.split())


def main() -> int:
    page = make_page()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE.name} is not what the descriptions say: run it with --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
