"""Patches that a person brings along: read from a file without running it, matched as this library's variants are."""

import ast
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mishformer_lens.engine import Edit, Edits, as_edits, failing_edits
from mishformer_lens.errors import InvalidAnchorError, PatchFileError

_FORMS = (
    "Needed is a dictionary from member names to lists of (before, after) pairs of source text: in JSON, or in a "
    "Python file as a dictionary of plain text or as the arguments of a ModuleASTPatcher."
)
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclasses.dataclass(frozen=True)
class Patches:
    """Edits of one module, for the releases that they fit.

    Attributes:
        name: what to call them; the file's name.
        module: the module that they patch, such as ``transformers.models.llama.modeling_llama``.
        edits: the edits, by member.
        at_most: members whose anchors may occur more than once: how often at most.
    """

    name: str
    module: str
    edits: Edits
    at_most: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def source_path(self) -> str:
        """Where the module lies in a wheel."""
        return f"{self.module.replace('.', '/')}.py"

    def failures(self, source: str) -> tuple[tuple[str, str], ...]:
        """Member and message of every edit that does not fit ``source``."""
        edits = {
            member: [self._counted(source, member, edit) for edit in entries]
            for member, entries in as_edits(self.edits).items()
        }
        return tuple((member, str(error)) for member, _, error in failing_edits(source, edits))

    def _counted(self, source: str, member: str, edit: Edit) -> Edit:
        candidates = [dataclasses.replace(edit, count=count) for count in range(1, self.at_most.get(member, 1) + 1)]
        if len(candidates) == 1:
            return edit
        return next((each for each in candidates if not list(failing_edits(source, {member: [each]}))), edit)


def read_patches(path: Path, module: str | None = None) -> list[Patches]:
    """The patches in a JSON or Python file. A Python file is read, not run.

    Args:
        module: the module that a plain dictionary is for; a ``ModuleASTPatcher`` names its own.

    Raises:
        PatchFileError: the file cannot be read, has none, or does not say for which module they are.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PatchFileError(f"{path} cannot be read: {error}. {_FORMS}") from error
    found = list(_in_json(path, text) if path.suffix == ".json" else _in_python(path, text))
    if not found:
        raise PatchFileError(f"{path} holds no patches. {_FORMS}")
    return [_with_module(path, patches, module) for patches in found]


def _with_module(path: Path, patches: Patches, module: str | None) -> Patches:
    name = patches.module or module or ""
    if not _MODULE.fullmatch(name):
        raise PatchFileError(
            f"the module that {path} patches is {f'{name!r}' if name else 'not known'}: name it with "
            "--module transformers.models.<family>.modeling_<family>"
        )
    try:
        as_edits(patches.edits)
    except InvalidAnchorError as error:
        raise PatchFileError(f"{path}: {error}") from error
    return dataclasses.replace(patches, module=name)


def _in_json(path: Path, text: str) -> Iterator[Patches]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise PatchFileError(f"{path} is not JSON ({error}). {_FORMS}") from error
    if not _are_edits(value):
        raise PatchFileError(f"{path} is JSON of another form. {_FORMS}")
    yield Patches(path.stem, "", _as_pairs(value))


def _in_python(path: Path, text: str) -> Iterator[Patches]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise PatchFileError(f"{path} is not Python ({error}). {_FORMS}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "ModuleASTPatcher":
            yield _from_patcher(path, node)
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Dict):
            value = _literal(statement.value)
            if value and _are_edits(value):
                yield Patches(path.stem, "", _as_pairs(value))


def _from_patcher(path: Path, call: ast.Call) -> Patches:
    edits = {keyword.arg: _literal(keyword.value) for keyword in call.keywords if keyword.arg}
    if not call.args or not edits or not _are_edits(edits):
        raise PatchFileError(
            f"{path}, line {call.lineno}: the arguments of this patcher are not plain strings. {_FORMS}"
        )
    module = _literal(call.args[0]) or ast.unparse(call.args[0])
    return Patches(path.stem, str(module), _as_pairs(edits), _at_most(call.args[1:]))


def _at_most(settings: Sequence[ast.expr]) -> dict[str, int]:
    """What ``allow_num_matches_upto`` says, written as ``dict(...)`` or as a literal."""
    for call in settings:
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            value = keyword.value
            if keyword.arg != "allow_num_matches_upto":
                continue
            if isinstance(value, ast.Call):
                entries = {each.arg: _literal(each.value) for each in value.keywords}
            else:
                entries = _literal(value) or {}
            return {str(name): int(count) for name, count in entries.items() if isinstance(count, int)}
    return {}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _are_edits(value: object) -> bool:
    if not isinstance(value, dict) or not all(isinstance(entries, list | tuple) for entries in value.values()):
        return False
    return all(_is_edit(entry) for entries in value.values() for entry in entries)


def _is_edit(entry: object) -> bool:
    if isinstance(entry, str):
        return True  # of a flat list, before and after in turn
    return isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(side, str) for side in entry)


def _as_pairs(value: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {
        member: [entry if isinstance(entry, str) else (entry[0], entry[1]) for entry in entries]
        for member, entries in value.items()
    }
