"""Makes the mutants of a variant's edits: an edit dropped, a hook dropped, a hook moved by one place.

They are made from the syntax tree of the patched source, so that a new edit has its mutants without a line here.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from mishformer_lens.engine import Edit, Edits, as_edits, patch_source
from mishformer_lens.engine.edits import clean
from mishformer_lens.engine.matching import find_member

HELPERS = ("attention_call", "attention_inputs", "attention_scores", "head_results", "norm_hooks", "shared_norm")
HOOK_METHODS = ("", "heads_first", "copied", "for_batch")
# Calls that start with one of these take the activation as an argument; others are methods of the activation.
NO_ACTIVATIONS = ("self", "module", "nn", "torch", "_kwargs")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Replacement = tuple[str, object, object]
"""What it does, the node or block to be replaced, and what replaces it."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A variant's edits with one mistake in them.

    Attributes:
        member: the class and method, or the function, in which the mistake is.
        edits_at: the positions, in that member's list, of the edits that the mistake is about.
        what: the mistake, in words; unique in its member.
        edits: all edits of the variant, with the mistake.
        before, after: the statements of the member without and with the mistake.
        drops_edit: whether the mistake is that a whole edit is missing.
    """

    member: str
    edits_at: tuple[int, ...]
    what: str
    edits: Edits = dataclasses.field(repr=False)
    before: str = dataclasses.field(repr=False)
    after: str = dataclasses.field(repr=False)
    drops_edit: bool = False


@dataclasses.dataclass(frozen=True)
class Site:
    """One call of a hook point, or of an object that holds some, and where it stands.

    Attributes:
        method: the method that is called; empty where a hook point itself is.
        block, index: the statements around it, and the place of its own among them.
        parents: node to the node around it, for all of the function.
        reads_later: whether a name is read after the statement, before it is bound anew.
    """

    call: ast.Call
    method: str
    block: list[ast.stmt]
    index: int
    parents: dict[ast.AST, ast.AST]
    reads_later: Callable[[str], bool]

    @property
    def activation(self) -> ast.expr:
        return self.call.args[0]

    @property
    def statement(self) -> ast.stmt:
        return self.block[self.index]

    @property
    def is_hook(self) -> bool:
        return self.method in HOOK_METHODS

    def around(self, activation: ast.expr, method: str | None = None) -> ast.Call:
        """The same call on another activation; with ``method``, as a call of that method with no further argument."""
        if method is None:
            return ast.Call(self.call.func, [activation, *self.call.args[1:]], self.call.keywords)
        point = self.call.func.value if self.method and isinstance(self.call.func, ast.Attribute) else self.call.func
        return ast.Call(ast.Attribute(point, method, ast.Load()) if method else point, [activation], [])


def make_mutants(source: str, edits: Edits) -> list[Mutant]:
    """Every mutant of ``edits``, which fit ``source``."""
    patched, original = ast.parse(patch_source(source, edits).text), ast.parse(source)
    found = []
    for member, entries in as_edits(edits).items():
        function = _function(patched, member)
        for position, edit in enumerate(entries):
            remaining = {**edits, member: [each for each in entries if each is not edit]}
            found.append(
                Mutant(member, (position,), f"drop edit {position + 1}", remaining, edit.after, edit.before, True)
            )
        whole = _body(_function(original, member))
        for what, site, mutated in _mutated(function):
            replaced = {**edits, member: [Edit(whole, _body(mutated))]}
            owners = tuple(place for place, edit in enumerate(entries) if _makes(edit, site))
            found.append(Mutant(member, owners, what, replaced, _body(function), _body(mutated)))
    return found


def _function(tree: ast.Module, member: str) -> Function:
    node = find_member(tree, member)
    assert isinstance(node, Function), f"the mutants are those of functions, and {member} is none"
    return node


def _body(function: Function) -> str:
    skipped = 1 if ast.get_docstring(function) is not None else 0
    return ast.unparse(ast.Module(function.body[skipped:], []))


def _makes(edit: Edit, site: Site) -> bool:
    """Whether an edit brings in a call like that of ``site``."""
    target = ast.dump(site.call.func)
    calls = [node for node in ast.walk(ast.parse(clean(edit.after))) if isinstance(node, ast.Call)]
    return any(ast.dump(call.func) == target for call in calls)


def _mutated(function: Function) -> Iterator[tuple[str, Site, Function]]:
    """Every mutation of a function that changes it, each once."""
    seen = {ast.unparse(function)}
    numbers: dict[str, itertools.count[int]] = {}
    for site in find_sites(function):
        target = ast.unparse(site.call.func)
        number = next(numbers.setdefault(target, itertools.count(1)))
        name = target if number == 1 else f"{target} ({number})"
        for what, old, new in itertools.chain.from_iterable(mutate(site) for mutate in MUTATIONS):
            mutated = _replaced(function, old, new)
            text = ast.unparse(mutated)
            if text not in seen:
                seen.add(text)
                yield f"{name}: {what}", site, mutated


Node = TypeVar("Node")


def _replaced(root: Node, old: object, new: object) -> Node:
    """A copy of ``root`` with ``new`` in the place of the very object ``old``."""
    return copy.deepcopy(root, {id(old): new})


def find_sites(function: Function) -> list[Site]:
    """The calls of hook points and of the objects that hold them, in the order of the source."""
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    found = [
        Site(node, method, *_place(node, parents), parents, _reader(node, parents))
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and (method := _method(node)) is not None
    ]
    return sorted(found, key=lambda site: (site.call.lineno, site.call.col_offset))


def _method(call: ast.Call) -> str | None:
    """The method that a call takes to a hook point or its holder; None where the call is another one."""
    names = [part.attr for part in ast.walk(call.func) if isinstance(part, ast.Attribute)]
    names += [
        part.value for part in ast.walk(call.func) if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]
    if isinstance(call.func, ast.Attribute):
        if names[0].startswith("hook_"):
            return ""
        holders = names[1:2]
        if any(name in HELPERS or name.startswith("hook_") for name in holders) and names[0] in UNHOOKED:
            return names[0]
    return None


def _place(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> tuple[list[ast.stmt], int]:
    """The block that the statement of ``node`` is in, and its index there."""
    while not isinstance(node, ast.stmt):
        node = parents[node]
    block = next(value for _, value in ast.iter_fields(parents[node]) if isinstance(value, list) and node in value)
    return block, block.index(node)


def _reader(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Callable[[str], bool]:
    def reads_later(name: str) -> bool:
        here: ast.AST = node
        while here in parents:
            if isinstance(here, ast.stmt):
                block, index = _place(here, parents)
                for statement in block[index + 1 :]:
                    if name in _names(statement, ast.Load):
                        return True
                    if isinstance(statement, ast.Assign) and name in _names(statement, ast.Store):
                        return False
            here = parents[here]
        return False

    return reads_later


def _names(node: ast.AST, context: type[ast.expr_context] = ast.expr_context) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, context)}


def _bind(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value, lineno=0)


# What stands in the place of a call where the hook is not there at all, from the call's arguments.
UNHOOKED: dict[str, Callable[[list[ast.expr]], ast.expr]] = {
    **dict.fromkeys(HOOK_METHODS, lambda arguments: arguments[0]),
    **dict.fromkeys(
        ("normalize", "project", "query", "key", "value"),
        lambda arguments: ast.Call(arguments[0], [arguments[1]], []),
    ),
    **dict.fromkeys(("around", "around_flash", "normalized"), lambda arguments: arguments[0]),
    "divided": lambda arguments: ast.BinOp(
        arguments[0],
        ast.Mult(),
        ast.Call(ast.Attribute(ast.Name("torch", ast.Load()), "rsqrt", ast.Load()), [arguments[1]], []),
    ),
    "for_mlp": lambda arguments: arguments[2],
    "may_edit": lambda _arguments: ast.Constant(False),
    "choose": lambda arguments: arguments[0],
    "choose_by_type": lambda arguments: ast.Subscript(arguments[0], arguments[1], ast.Load()),
    "sdpa": lambda arguments: arguments[0],
    "flash": lambda arguments: arguments[0],
}


def drop(site: Site) -> Iterator[Replacement]:
    yield "drop", site.call, UNHOOKED[site.method](site.call.args)


def move_inwards(site: Site) -> Iterator[Replacement]:
    """``hook(f(x))`` becomes ``f(hook(x))``, and ``hook(a + b)`` becomes ``hook(a) + b`` and ``a + hook(b)``."""
    if site.is_hook:
        for operand in _operands(site.activation):
            moved = _replaced(site.activation, operand, site.around(operand))
            yield f"move inwards, to {ast.unparse(operand)}", site.call, moved


def _operands(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.Call(func=ast.Attribute(value=receiver)) if _root(receiver) not in NO_ACTIVATIONS:
            return [receiver]
        case ast.Call(args=[ast.Tuple(elts=[first, *_]), *_]):
            return [first]
        case ast.Call(args=[first, *_]) if not isinstance(first, ast.Starred):
            return [first]
    return []


def _root(node: ast.expr) -> str:
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]
    return names[0] if names else ""


def move_outwards(site: Site) -> Iterator[Replacement]:
    """``f(hook(x))`` becomes ``hook(f(x))``, and ``hook(a) + b`` becomes ``hook(a + b)``."""
    around = site.parents[site.call]
    if isinstance(around, ast.Attribute):
        around = site.parents[around]
    is_operand = isinstance(around, ast.BinOp) or (
        isinstance(around, ast.Call) and (site.call in around.args[:1] or site.call not in around.args)
    )
    if site.is_hook and is_operand and isinstance(around, ast.expr):
        yield "move outwards", around, site.around(_replaced(around, site.call, site.activation))


def move_down(site: Site) -> Iterator[Replacement]:
    """``x = hook(e)`` becomes ``x = e`` with ``x = hook(x)`` after the next statement that has to do with either."""
    match site.statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=site.call) if site.is_hook:
            for index in _neighbours(site, name, range(site.index + 1, len(site.block))):
                if not isinstance(site.block[index], ast.Return):
                    new = list(site.block)
                    new.insert(index + 1, _bind(name, site.around(ast.Name(name, ast.Load()))))
                    new[site.index] = _bind(name, site.activation)
                    yield "move down", site.block, new


def move_up(site: Site) -> Iterator[Replacement]:
    """``hook(x)`` becomes ``x`` with ``x = hook(x)`` before the last statement that has to do with either."""
    match site.activation if site.is_hook else None:
        case ast.Name(id=name):
            for index in _neighbours(site, name, range(site.index - 1, -1, -1)):
                new = list(site.block)
                new[site.index] = _replaced(site.statement, site.call, site.activation)
                new.insert(index, _bind(name, site.call))
                yield "move up", site.block, new


def _neighbours(site: Site, name: str, indices: Iterable[int]) -> list[int]:
    """The first of the statements at ``indices`` that has ``name`` or a hook in it: past others a move is none."""
    for index in indices:
        statement = site.block[index]
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        if name in _names(statement) or any(_method(call) is not None for call in calls):
            return [index]
    return []


def change_path(site: Site) -> Iterator[Replacement]:
    """Let an edit reach the skip path where it was for the branch, or the other way round."""
    around = site.parents[site.call]
    if isinstance(around, ast.NamedExpr):
        yield "branch only", around, site.call
        return
    match site.activation if site.is_hook else None:
        case ast.Name(id=name) as activation if site.reads_later(name) and name not in _names(
            site.statement, ast.Store
        ):
            yield "skip path too", site.call, ast.NamedExpr(ast.Name(activation.id, ast.Store()), site.call)


def call_otherwise(site: Site) -> Iterator[Replacement]:
    """Forget how a hook is called: the axis order, the copy, the batch, the mask."""
    if site.is_hook and site.method:
        yield "plain call", site.call, site.around(site.activation, method="")
    for keyword in site.call.keywords:
        yield (
            f"without {keyword.arg}",
            site.call,
            site.around(site.activation, method=site.method)
            if (site.is_hook)
            else ast.Call(site.call.func, site.call.args, [each for each in site.call.keywords if each is not keyword]),
        )


MUTATIONS: tuple[Callable[[Site], Iterator[Replacement]], ...] = (
    drop,
    move_inwards,
    move_outwards,
    move_down,
    move_up,
    change_path,
    call_otherwise,
)
