"""Turn a patched source into living classes and functions."""

import ast
import collections
import dataclasses
import inspect
import io
import linecache
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeGuard

from mishformer_lens.engine.matching import find_member
from mishformer_lens.engine.patching import PatchedSource
from mishformer_lens.errors import UnsupportedEditError

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Names that a patched member is compiled with and that no code of a release has.
_METACLASS = "__body_only__"
_ENCLOSING = "__patched__"
_CELLS = "__cells__"


@dataclasses.dataclass(frozen=True)
class BuiltMembers:
    """Patched members, ready to use beside the originals.

    Attributes:
        classes: original class to its patched subclass; also for those that only inherit from an edited class.
        functions: name of a module function to its patched version.
        originals: every method and function that something patched stands in for, by its qualified name: the class that
            has it, or None for a function of the module, and what was found there when it was patched.
        uses: class to the qualified names in ``originals`` that its patched methods stand in for or may call.
        decorators: edited class to the names of its decorators, which are not run again.
        filename: the name under which tracebacks, ``inspect.getsource`` and pdb show the patched source.
    """

    classes: Mapping[type, type]
    functions: Mapping[str, types.FunctionType]
    originals: Mapping[str, tuple[type | None, object]]
    uses: Mapping[type, frozenset[str]]
    decorators: Mapping[type, frozenset[str]]
    filename: str


def build_members(
    module: types.ModuleType,
    patched: PatchedSource,
    *,
    label: str,
    extra_names: Mapping[str, object] | None = None,
    drop_decorators: Collection[str] = (),
) -> BuiltMembers:
    """Compile what the edits changed. ``module`` stays as it is.

    Only methods and functions whose code differs from the original are compiled. Patched code sees other patched
    members in the place of the originals, and everything else as it is in ``module`` at the time: what somebody
    replaces there later counts. For each class that has a changed method, or inherits from one that has, a subclass of
    the original is made; its ``super()`` reaches the patched parent. The changed methods stand in the body of that
    subclass, so that metaclasses and ``__init_subclass__`` see them.

    Args:
        label: tells this patched source from others of the same module, in tracebacks.
        extra_names: names that the patched code may use beyond those of the module.
        drop_decorators: names of decorators that must not run again because they only write documentation.

    Raises:
        UnsupportedEditError: an edit changes something else than functions and methods, or a member whose name stands
            for something else by now.
    """
    filename = f"<{module.__name__} patched by {label}>"
    _show_in_tracebacks(filename, patched.text)
    before, after = ast.parse(patched.original), ast.parse(patched.text)
    found = {name: _original(module, before, after, name) for name in patched.members}
    names = {**found, **(extra_names or {})}
    compiler = _Compiler(filename, module, names, _future_imports(after), drop_decorators)
    functions: dict[str, types.FunctionType] = {}
    methods: dict[type, dict[str, Any]] = {}
    originals: dict[str, tuple[type | None, object]] = {}
    uses: dict[type, frozenset[str]] = {}
    decorators: dict[type, frozenset[str]] = {}
    for name, original in found.items():
        old, new = find_member(before, name), find_member(after, name)
        if isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef):
            changed = _changed_functions(old, new)
            methods[original] = compiler.methods(changed, original)
            decorators[original] = frozenset(map(_dotted_name, new.decorator_list))
            existing = methods[original].keys() & vars(original).keys()
            own = {f"{name}.{each}": (original, vars(original)[each]) for each in existing}
            originals |= own
            uses[original] = frozenset(own) | _names_in(changed)
        elif isinstance(new, Function):
            functions[name] = compiler.function(new, original)
            originals[name] = None, original
    classes = _subclasses(module, methods)
    compiler.link(functions | {original.__name__: subclass for original, subclass in classes.items()})
    uses = {cls: frozenset().union(*(uses.get(each, ()) for each in cls.__mro__)) & originals.keys() for cls in classes}
    return BuiltMembers(classes, functions, originals, uses, decorators, filename)


def _original(module: types.ModuleType, before: ast.Module, after: ast.Module, name: str) -> Any:
    """What the member ``name`` is in ``module``."""
    old, new, original = find_member(before, name), find_member(after, name), vars(module).get(name)
    is_class = isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef) and _is_own_class(original, module)
    if not is_class and (not isinstance(new, Function) or original is None):
        raise UnsupportedEditError(
            f"{name} of {module.__name__} is not what its source says: it was deleted or replaced after its "
            "definition. Edit what took its place."
        )
    return original


def _names_in(nodes: Iterable[ast.AST]) -> frozenset[str]:
    return frozenset(each.id for node in nodes for each in ast.walk(node) if isinstance(each, ast.Name))


def _changed_functions(old: ast.ClassDef, new: ast.ClassDef) -> list[Function]:
    """The methods of ``new`` that ``old`` has not; a property comes with all its parts.

    Raises:
        UnsupportedEditError: something else than methods was changed.
    """
    dumps = {ast.dump(node) for node in old.body if isinstance(node, Function)}
    methods = [node for node in new.body if isinstance(node, Function)]
    removed = {node.name for node in old.body if isinstance(node, Function)} - {node.name for node in methods}
    if removed or _without_methods(old) != _without_methods(new):
        what = f"remove {', '.join(sorted(removed))}" if removed else "change more than its methods"
        raise UnsupportedEditError(
            f"the edits of the class {new.name} {what}. Objects that exist already can only be given other methods: "
            "edit those."
        )
    changed = {node.name for node in methods if ast.dump(node) not in dumps}
    return [node for node in methods if node.name in changed]


def _without_methods(node: ast.ClassDef) -> str:
    parts = [*node.decorator_list, *node.bases, *node.keywords]
    return str([ast.dump(each) for each in (*parts, *node.body) if not isinstance(each, Function)])


def _future_imports(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


def _subclasses(module: types.ModuleType, methods: Mapping[type, dict[str, Any]]) -> dict[type, type]:
    """A subclass for every class of ``module`` that has ``methods`` or inherits from one that has, parents first."""
    own: dict[type, None] = {value: None for value in vars(module).values() if _is_own_class(value, module)}
    result: dict[type, type] = {}
    affected = [cls for cls in own if not methods.keys().isdisjoint(cls.__mro__)]
    for cls in sorted(affected, key=lambda cls: len(cls.__mro__)):
        parents = tuple(result[parent] for parent in cls.__mro__[1:] if parent in result)
        result[cls] = _subclass(cls, (cls, *parents), methods.get(cls, {}))
    return result


def _is_own_class(value: object, module: types.ModuleType) -> TypeGuard[type]:
    return isinstance(value, type) and value.__module__ == module.__name__


def _subclass(cls: type, bases: tuple[type, ...], methods: dict[str, Any]) -> type:
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, **methods}
    return types.new_class(cls.__name__, bases, exec_body=lambda namespace: namespace.update(body))


class _Compiler:
    """Compiles members into functions whose globals are the module's own.

    The names in ``names`` are variables of a function around each member, so that they can stand for something else in
    patched code than in the module.
    """

    def __init__(
        self,
        filename: str,
        module: types.ModuleType,
        names: Mapping[str, object],
        future_imports: list[ast.stmt],
        drop_decorators: Collection[str],
    ) -> None:
        self._filename = filename
        self._module = module
        self._names = names
        self._future_imports = future_imports
        self._dropped = drop_decorators
        self._cells: list[tuple[str, types.CellType]] = []

    def function(self, node: Function, original: object) -> Any:
        self._drop_decorators(node)
        function = self._run(node, {})
        _copy_documentation(original, function)
        return function

    def methods(self, nodes: list[Function], owner: type) -> dict[str, Any]:
        """Compile methods inside a class statement, which gives them their names and ``super()`` its class."""
        for node in nodes:
            self._drop_decorators(node)
        statement = ast.parse(f"class {owner.__name__}(metaclass={_METACLASS}): pass").body[0]
        assert isinstance(statement, ast.ClassDef)  # the line above
        statement.body += nodes
        body = self._run(statement, {_METACLASS: _ClassBody(owner)})
        methods = {name: body[name] for name in (_mangled(node.name, owner) for node in nodes)}
        for name, method in methods.items():
            _copy_documentation(vars(owner).get(name), method)
        return methods

    def link(self, values: Mapping[str, object]) -> None:
        """Let everything that was compiled see ``values`` under their names."""
        for name, cell in self._cells:
            if name in values:
                cell.cell_contents = values[name]

    def _drop_decorators(self, node: Function) -> None:
        node.decorator_list = [each for each in node.decorator_list if _dotted_name(each) not in self._dropped]

    def _run(self, statement: ast.ClassDef | Function, more: Mapping[str, object]) -> Any:
        """Execute a definition inside a function that has the names as parameters, and return what it defines."""
        names = {**self._names, **more}
        enclosing = ast.parse(
            f"def {_ENCLOSING}({', '.join(names)}):\n"
            f"    def {_CELLS}(): return {', '.join(self._names)},\n"
            f"    return {statement.name}, {_CELLS}"
        )
        function = enclosing.body[0]
        assert isinstance(function, ast.FunctionDef)  # the lines above
        function.body.insert(1, statement)
        enclosing.body = [*self._future_imports, *enclosing.body]
        code = compile(ast.fix_missing_locations(enclosing), self._filename, "exec")
        scope: dict[str, Any] = {}
        exec(_without_prefix(code), vars(self._module), scope)
        defined, cells = scope[_ENCLOSING](**names)
        self._cells += zip(cells.__code__.co_freevars, cells.__closure__, strict=True)
        return defined


def _without_prefix(code: types.CodeType) -> types.CodeType:
    """``code`` with the qualified names that it would have outside of the enclosing function."""
    prefix = f"{_ENCLOSING}.<locals>."

    def renamed(constant: Any) -> Any:
        if isinstance(constant, types.CodeType):
            return _without_prefix(constant)
        return constant.removeprefix(prefix) if isinstance(constant, str) else constant

    constants = tuple(map(renamed, code.co_consts))
    return code.replace(co_qualname=code.co_qualname.removeprefix(prefix), co_consts=constants)


@dataclasses.dataclass(frozen=True)
class _ClassBody:
    """Stands as metaclass of a class statement of which only the body is wanted.

    The body sees the names in the class that it is for. ``super()`` in it starts from that class too: in the patched
    subclass the patched parent comes right after the original in the method resolution order.
    """

    owner: type

    def __prepare__(self, _name: str, _bases: tuple[type, ...]) -> collections.ChainMap[str, Any]:
        return collections.ChainMap({}, dict(vars(self.owner)))

    def __call__(self, _name: str, _bases: tuple[type, ...], body: collections.ChainMap[str, Any]) -> dict[str, Any]:
        if "__classcell__" in body.maps[0]:
            body["__classcell__"].cell_contents = self.owner
        return dict(body.maps[0])


def _mangled(name: str, owner: type) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{owner.__name__.lstrip('_')}{name}" if private else name


def _dotted_name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _copy_documentation(original: object, patched: Any) -> None:
    """Give a patched function the documentation of the original, which a decorator that was dropped may have made."""
    if original is not None:
        for each in (patched, inspect.unwrap(patched)):
            each.__doc__ = original.__doc__


def _show_in_tracebacks(filename: str, text: str) -> None:
    # Without a modification time, linecache never drops the entry for want of a file.
    linecache.cache[filename] = (len(text), None, io.StringIO(text).readlines(), filename)
