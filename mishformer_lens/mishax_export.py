"""The edits of a variant for those who patch with mishax."""

import ast
from typing import TYPE_CHECKING

from mishformer_lens.compat.members import member_text
from mishformer_lens.engine import Edit, as_edits, patch_source
from mishformer_lens.engine.edits import clean
from mishformer_lens.engine.matching import find_member
from mishformer_lens.engine.patching import apply_edit
from mishformer_lens.errors import MissingDependencyError, PatchError, UnsupportedModelError
from mishformer_lens.patched_classes import DOCUMENTATION_DECORATORS
from mishformer_lens.patchers import FAMILIES, Variant
from mishformer_lens.patchers.resolver import modeling_module, resolve_imported
from mishformer_lens.suggestions import did_you_mean

if TYPE_CHECKING:
    from mishax.ast_patcher import ModuleASTPatcher

Pairs = list[tuple[str, str]]

# mishax runs decorators again. These only write documentation, and fail where the code has no file.
_PREFIX = """
def _leave_as_it_is(*arguments, **options):
    if len(arguments) == 1 and callable(arguments[0]) and not options:
        return arguments[0]
    return lambda decorated: decorated

""" + "\n".join(f"{name} = _leave_as_it_is" for name in sorted(DOCUMENTATION_DECORATORS))


def to_mishax(family: str, *, allow_unverified: bool | None = None) -> "ModuleASTPatcher":
    """The edits for the installed release as a ``mishax.ast_patcher.ModuleASTPatcher``.

    It carries the edits alone. The code that they patch calls hook points by attribute (``self.hook_z`` and so on, and
    helpers such as ``attention_inputs`` and ``norm_hooks``), which :func:`mishformer_lens.instrument` would have put on
    the modules; with mishax, that is yours to do.

    Args:
        family: its name in transformers, as ``gpt2``.
        allow_unverified: see :func:`mishformer_lens.instrument`.

    Raises:
        MissingDependencyError: mishax is not installed.
        UnsupportedModelError: there is no such family.
        ResolutionError: there is no proven variant for the installed release.
    """
    if family not in FAMILIES:
        raise UnsupportedModelError(
            f"there is no family {family!r}. {did_you_mean(family, FAMILIES)}Known are: {', '.join(FAMILIES)}"
        )
    try:
        from mishax.ast_patcher import ModuleASTPatcher, PatchSettings
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed, and mishax is on no package index. Install it from its repository: "
            'pip install "mishax @ git+https://github.com/google-deepmind/mishax"'
        ) from error
    module = modeling_module(FAMILIES[family])
    verdict, source = resolve_imported(FAMILIES[family], module, allow_unverified)
    pairs, at_most = mishax_pairs(source.text, verdict.variant)
    return ModuleASTPatcher(module, PatchSettings(prefix=_PREFIX, allow_num_matches_upto=at_most), **pairs)


def mishax_pairs(source: str, variant: Variant) -> tuple[dict[str, Pairs], dict[str, int]]:
    """The edits of a variant as mishax takes them, and how often anchors occur at most where that is more than once.

    mishax knows top-level members only and replaces an anchor wherever it occurs in them. Where the edits of single
    methods do not come to the same in that way, whole methods are replaced by their patched form.

    Args:
        source: the source that the variant is for.

    Raises:
        PatchError: the edits do not fit ``source``.
    """
    patched = ast.parse(patch_source(source, variant.edits).text)
    pairs: dict[str, Pairs] = {}
    at_most: dict[str, int] = {}
    for name in variant.members:
        counts: dict[tuple[str, str], int] = {}
        for member, edits in as_edits(variant.edits).items():
            for edit in edits if member.partition(".")[0] == name else ():
                pair = (clean(edit.before), clean(edit.after))
                counts[pair] = counts.get(pair, 0) + edit.count
        if not counts:
            continue  # it counts for what the source is, and nothing is changed in it
        text = member_text(source, name)
        if _come_to(text, name, counts, patched):
            pairs[name] = list(counts)
            if max(counts.values()) > 1:
                at_most[name] = max(counts.values())
        else:
            pairs[name] = list(_whole_functions(ast.parse(source), patched, name, variant))
    return pairs, at_most


def _come_to(text: str, name: str, counts: dict[tuple[str, str], int], patched: ast.Module) -> bool:
    """Whether replacing each anchor wherever it occurs in the member gives the patched member."""
    try:
        for (before, after), count in counts.items():
            text = apply_edit(text, name, Edit(before, after, count))
    except PatchError:
        return False
    return _dump(ast.parse(text), name) == _dump(patched, name)


def _whole_functions(original: ast.Module, patched: ast.Module, name: str, variant: Variant) -> Pairs:
    members = dict.fromkeys(member for member in variant.edits if member.partition(".")[0] == name)
    nodes = [(find_member(original, member), find_member(patched, member)) for member in members]
    return [(ast.unparse(before), ast.unparse(after)) for before, after in nodes if before and after]


def _dump(tree: ast.Module, name: str) -> str:
    node = find_member(tree, name)
    return ast.dump(node) if node is not None else ""
