"""Turn a patched source into living classes and functions."""

import ast
import collections
import dataclasses
import inspect
import io
import linecache
import types
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from mishformer_lens.engine.matching import find_member
from mishformer_lens.engine.patching import PatchedSource
from mishformer_lens.errors import UnsupportedEditError

Function = ast.FunctionDef | ast.AsyncFunctionDef

_METACLASS = "__body_only__"


@dataclasses.dataclass(frozen=True)
class BuiltMembers:
    """Patched members, ready to use beside the originals.

    Attributes:
        classes: original class to its patched subclass; also for those that only inherit from an edited class.
        functions: name of a module function to its patched version.
        namespace: the globals of all patched code: a copy of the module's, with patched members in the place of the
            originals.
        filename: the name under which tracebacks, ``inspect.getsource`` and pdb show the patched source.
    """

    classes: Mapping[type, type]
    functions: Mapping[str, types.FunctionType]
    namespace: Mapping[str, Any]
    filename: str


def build_members(
    module: types.ModuleType,
    patched: PatchedSource,
    *,
    label: str,
    extra_names: Mapping[str, object] | None = None,
    drop_decorators: Collection[str] = (),
) -> BuiltMembers:
    """Compile what the edits changed, against a copy of the namespace of ``module``. ``module`` stays as it is.

    Only methods and functions whose code differs from the original are compiled. For each class that has such a method,
    or inherits from one that has, a subclass of the original is made; its ``super()`` reaches the patched parent.

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
    namespace = {**vars(module), **(extra_names or {})}
    compiler = _Compiler(filename, namespace, _future_imports(after), drop_decorators)
    functions: dict[str, types.FunctionType] = {}
    methods: dict[type, dict[str, Any]] = {}
    for name in patched.members:
        old, new, original = find_member(before, name), find_member(after, name), vars(module).get(name)
        if isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef) and _is_own_class(original, module):
            methods[original] = compiler.methods(_changed_functions(old, new), original)
        elif isinstance(new, Function) and original is not None:
            functions[name] = compiler.function(new, original)
        else:
            raise UnsupportedEditError(
                f"{name} of {module.__name__} is not what its source says: it was deleted or replaced after its "
                "definition. Edit what took its place."
            )
    classes = _subclasses(module, methods)
    namespace |= functions | {original.__name__: subclass for original, subclass in classes.items()}
    return BuiltMembers(classes=classes, functions=functions, namespace=namespace, filename=filename)


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


@dataclasses.dataclass(frozen=True)
class _Compiler:
    filename: str
    namespace: dict[str, Any]
    future_imports: list[ast.stmt]
    drop_decorators: Collection[str]

    def function(self, node: Function, original: object) -> Any:
        self._drop_decorators(node)
        function = self._run(node, {})[node.name]
        _copy_documentation(original, function)
        return function

    def methods(self, nodes: list[Function], owner: type) -> dict[str, Any]:
        """Compile methods inside a class statement, which gives them their names and ``super()`` its class."""
        for node in nodes:
            self._drop_decorators(node)
        statement = ast.parse(f"class {owner.__name__}(metaclass={_METACLASS}): pass").body[0]
        assert isinstance(statement, ast.ClassDef)  # the line above
        statement.body += nodes
        body = self._run(statement, {_METACLASS: _ClassBody(owner)})[owner.__name__]
        methods = {name: body[name] for name in (_mangled(node.name, owner) for node in nodes)}
        for name, method in methods.items():
            _copy_documentation(vars(owner).get(name), method)
        return methods

    def _drop_decorators(self, node: Function) -> None:
        node.decorator_list = [each for each in node.decorator_list if _dotted_name(each) not in self.drop_decorators]

    def _run(self, statement: ast.stmt, scope: dict[str, Any]) -> dict[str, Any]:
        tree = ast.parse("")
        tree.body = [*self.future_imports, statement]
        exec(compile(ast.fix_missing_locations(tree), self.filename, "exec"), self.namespace, scope)
        return scope


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
