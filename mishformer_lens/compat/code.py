"""What a recorded outcome speaks for: the code of this library that hooks a model of one family."""

import ast
import dataclasses
import functools
import hashlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mishformer_lens.engine import as_edits, member_fingerprints
from mishformer_lens.engine.edits import clean
from mishformer_lens.patchers import FAMILIES, Family, Variant

_PACKAGE = Path(__file__).parent.parent
_ENTRY = "mishformer_lens.instrumentation"
# What a family is told from is counted by itself, and how something is said is nothing that hooks a model.
_LEFT_OUT = ("mishformer_lens.patchers", "mishformer_lens.errors", "mishformer_lens.suggestions")

# What patched code calls beside hook points: its class, which counts where the edits of a variant call it.
HELPERS = {
    "attention_call": ("mishformer_lens.attention_call", "AttentionCall"),
    "attention_inputs": ("mishformer_lens.on_demand", "AttentionInputs"),
    "attention_scores": ("mishformer_lens.attention_scores", "AttentionScores"),
    "expert_hooks": ("mishformer_lens.experts", "ExpertHooks"),
    "head_results": ("mishformer_lens.on_demand", "HeadResults"),
    "norm_hooks": ("mishformer_lens.norms", "NormHooks"),
    "routing": ("mishformer_lens.experts", "Routing"),
    "shared_norm": ("mishformer_lens.shared_norm", "SharedNorm"),
}
# What stands in for torch's norms, where a family has those; no edit calls it.
_LAYER_NORM = ("mishformer_lens.norms", "HookedLayerNorm")
# Each of these works by another.
_NEEDS = {"attention_call": "attention_scores"}


def code_fingerprint(family: str, variant: str) -> str:
    """A hash of the code that hooks ``family`` with ``variant``. Comments, docstrings and annotations do not count.

    Other variants are not in it: a new one leaves what is known of the others as it is. Nor is code that only other
    families use. Empty where the family has no such variant any more.
    """
    declared = FAMILIES[family]
    chosen = next((each for each in declared.variants if each.name == variant), None)
    if chosen is None:
        return ""
    lines = list(_code_lines(_PACKAGE, frozenset(_unused(declared, chosen))))
    # Variants share parts with each other, so it is what they come to that counts, not their files.
    lines += [_told(declared), repr(chosen.attention), repr(sorted(chosen.unsupported.items()))]
    lines += map(_told, (*declared.embedding_hooks, *declared.block_hooks, *declared.final_hooks))
    lines += [repr((chosen.cache_argument, chosen.cache_by_place))]
    lines += [f"{name} {_told(value)}" for name, value in chosen.described.items()]
    for member, edits in as_edits(chosen.edits).items():
        lines += [f"{member} {clean(edit.before)!a} {clean(edit.after)!a} {edit.count}" for edit in edits]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _unused(family: Family, variant: Variant) -> Iterator[tuple[str, str]]:
    """Module and class of everything optional that the edits of a variant do not use."""
    text = "\n".join(clean(edit.after) for edits in as_edits(variant.edits).values() for edit in edits)
    used = {name for name in HELPERS if re.search(rf"\.{name}\b", text)}
    used |= {needed for name, needed in _NEEDS.items() if name in used}
    yield from (place for name, place in HELPERS.items() if name not in used)
    if family.norm.own:
        yield _LAYER_NORM


def _code_lines(package: Path, unused: frozenset[tuple[str, str]]) -> Iterator[str]:
    optional = {*HELPERS.values(), _LAYER_NORM}
    for module, text in sorted(_reached(package).items()):
        classes = {name for where, name in optional if where == module}
        without = frozenset(name for where, name in unused if where == module)
        if not classes or classes != without:
            yield f"{module} {_shape(text, without)}"


def _reached(package: Path) -> dict[str, str]:
    """Module to text of all that hooking a model imports."""
    found: dict[str, str] = {}
    open_modules = [_ENTRY]
    while open_modules:
        module = open_modules.pop()
        path = package.joinpath(*module.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module in found or module.startswith(_LEFT_OUT) or not file.is_file():
            continue
        found[module] = file.read_text(encoding="utf-8")
        open_modules += _imports(found[module])
    return found


@functools.lru_cache(maxsize=256)
def _imports(text: str) -> tuple[str, ...]:
    statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.module)
    modules = dict.fromkeys(str(node.module) for node in statements)
    return tuple(module for module in modules if module.startswith("mishformer_lens."))


@functools.lru_cache(maxsize=1024)
def _shape(text: str, without: frozenset[str]) -> str:
    tree = ast.parse(text)
    kept = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in without)]
    source = ast.unparse(ast.Module(kept, []))
    # The engine knows the shapes of classes, so the module is put into one.
    return member_fingerprints(f"class Module:\n{textwrap.indent(source, '    ')}\n    pass", ["Module"])["Module"]


_NO_MATTER = {"first_release", "prefix"}


def _told(value: object) -> str:
    """A description without what is as it is by default: a new field leaves families that do not use it as they are."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    told = []
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if field.repr and field.name not in _NO_MATTER and own != field.default:
            told.append(f"{field.name}={_told(own)}")
    return f"{type(value).__name__}({', '.join(told)})"
