"""What the tests of the engine share: source in, edits, source out; and source made into a module."""

import textwrap
import types

from mishformer_lens.engine import BuiltMembers, Edits, build_members, patch_source


def source(text: str) -> str:
    """Source quoted in a test: without the indentation of the test and the first line break."""
    return textwrap.dedent(text).removeprefix("\n")


def assert_edited(before: str, edits: Edits, after: str) -> None:
    """The edits make ``after`` of ``before``, character by character."""
    assert patch_source(source(before), edits).text == source(after)


def make_module(text: str, name: str = "made_up") -> types.ModuleType:
    """A module that was imported from ``text``."""
    module = types.ModuleType(name)
    exec(compile(source(text), f"<{name}>", "exec"), vars(module))
    return module


def build(text: str, edits: Edits, drop_decorators: tuple[str, ...] = ()) -> tuple[types.ModuleType, BuiltMembers]:
    """A module and its patched members."""
    module = make_module(text)
    patched = patch_source(source(text), edits)
    return module, build_members(module, patched, label="a test", drop_decorators=drop_decorators)
