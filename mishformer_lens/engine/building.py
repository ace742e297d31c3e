"""Turn a patched source into living classes and functions."""

import ast
import dataclasses
import inspect
import linecache
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from mishformer_lens.engine.matching import find_member
from mishformer_lens.engine.patching import PatchedSource

_FACTORY = "__patched_functions__"


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
    """
    filename = f"<{module.__name__} patched by {label}>"
    _show_in_tracebacks(filename, patched.text)
    before, after = ast.parse(patched.original), ast.parse(patched.text)
    namespace = {**vars(module), **(extra_names or {})}
    functions: dict[str, types.FunctionType] = {}
    methods: dict[str, list[str]] = {}
    for name in patched.members:
        new = find_member(after, name)
        old = find_member(before, name)
        assert new is not None  # the edits were applied to this member
        assert old is not None
        if isinstance(new, ast.ClassDef) and isinstance(old, ast.ClassDef):
            methods[name] = [node.name for node in _changed_functions(old, new)]
        elif not isinstance(new, ast.ClassDef):
            functions[name] = _compile([new], filename, namespace, None, drop_decorators)[name]
    classes = _subclasses(module, methods)
    for original, subclass in classes.items():
        names = methods.get(original.__name__)
        if names:
            tree = find_member(after, original.__name__)
            assert isinstance(tree, ast.ClassDef)  # found above
            nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
            for name, function in _compile(nodes, filename, namespace, original, drop_decorators).items():
                _describe(function, vars(original)[name])
                setattr(subclass, name, function)
    for name, function in functions.items():
        _describe(function, vars(module)[name])
    namespace |= functions | {original.__name__: subclass for original, subclass in classes.items()}
    return BuiltMembers(classes=classes, functions=functions, namespace=namespace, filename=filename)


def _changed_functions(old: ast.ClassDef, new: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    dumps = {node.name: ast.dump(node) for node in old.body if isinstance(node, ast.FunctionDef)}
    for node in new.body:
        if isinstance(node, ast.FunctionDef) and ast.dump(node) != dumps.get(node.name):
            yield node


def _subclasses(module: types.ModuleType, methods: Collection[str]) -> dict[type, type]:
    """A subclass for every class of ``module`` that is edited or inherits from an edited one, parents first."""
    own = {
        value: None
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    edited = {cls for cls in own if cls.__name__ in methods}
    result: dict[type, type] = {}
    for cls in sorted((cls for cls in own if edited & set(cls.__mro__)), key=lambda cls: len(cls.__mro__)):
        parents = tuple(result[parent] for parent in cls.__mro__[1:] if parent in result)
        result[cls] = _subclass(cls, (cls, *parents))
    return result


def _subclass(cls: type, bases: tuple[type, ...]) -> type:
    body = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return types.new_class(cls.__name__, bases, exec_body=lambda namespace: namespace.update(body))


def _compile(
    nodes: list[ast.FunctionDef | ast.AsyncFunctionDef] | list[ast.FunctionDef],
    filename: str,
    namespace: dict[str, Any],
    owner: type | None,
    drop_decorators: Collection[str],
) -> dict[str, Any]:
    """Compile functions inside a factory whose parameter gives ``super()`` the class cell that it looks for.

    The cell is the original class: in the patched subclass the patched parent comes right after the original in the
    method resolution order, so ``super()`` goes on from the original to the patched parent.
    """
    for node in nodes:
        node.decorator_list = [each for each in node.decorator_list if _dotted_name(each) not in drop_decorators]
    names = ast.Dict(
        keys=[ast.Constant(node.name) for node in nodes], values=[ast.Name(node.name, ast.Load()) for node in nodes]
    )
    tree = ast.parse(f"def {_FACTORY}(__class__): pass")
    factory = tree.body[0]
    assert isinstance(factory, ast.FunctionDef)  # the line above
    factory.body = [*nodes, ast.Return(names)]
    code = compile(ast.fix_missing_locations(tree), filename, "exec")
    scope: dict[str, Callable[[type | None], dict[str, Any]]] = {}
    exec(code, namespace, scope)
    return scope[_FACTORY](owner)


def _dotted_name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def _describe(function: Any, original: Any) -> None:
    """Give a patched function the names and the documentation of the original."""
    function, original = _plain(function), _plain(original)
    for each in (function, inspect.unwrap(function)):
        each.__doc__ = original.__doc__
        each.__qualname__ = original.__qualname__
        each.__module__ = original.__module__


def _plain(function: Any) -> Any:
    return function.__func__ if isinstance(function, classmethod | staticmethod) else function


def _show_in_tracebacks(filename: str, text: str) -> None:
    # Without a modification time, linecache never drops the entry for want of a file.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
