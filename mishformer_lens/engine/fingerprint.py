"""Fingerprints of source shapes: what the code of a member is, apart from how it is written down."""

import ast
import hashlib
from collections.abc import Iterable, Mapping

from mishformer_lens.engine.matching import Member, find_member


def member_fingerprints(source: str, members: Iterable[str]) -> dict[str, str]:
    """A hash of the shape of each top-level member: its syntax tree without docstrings and annotations.

    A member that ``source`` lacks has the fingerprint ``"absent"``.
    """
    tree = ast.parse(source)
    return {name: _fingerprint(find_member(tree, name)) for name in members}


def source_fingerprint(members: Mapping[str, str]) -> str:
    """One hash for a mapping from members to their fingerprints, whatever its order."""
    text = "\n".join(f"{name} {members[name]}" for name in sorted(members))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fingerprint(node: Member | None) -> str:
    if node is None:
        return "absent"
    shape = _Shape().visit(node)
    return hashlib.sha256(_dump(shape).encode()).hexdigest()[:16]


def _dump(node: ast.AST) -> str:
    """Like ``ast.dump``, but without the fields that a newer Python adds and leaves empty.

    In ASCII, because which characters ``repr`` escapes depends on Python's version of Unicode.
    """
    fields = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            fields.append(f"{name}={_dump(value)}")
        elif isinstance(value, list):
            if value:
                fields.append(f"{name}=[{','.join(_dump(v) if isinstance(v, ast.AST) else ascii(v) for v in value)}]")
        elif value is not None:
            fields.append(f"{name}={value!a}")
    return f"{type(node).__name__}({','.join(fields)})"


class _Shape(ast.NodeTransformer):
    """Drops docstrings, annotations and what only some Pythons put in. It changes the tree that it is given."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return ast.Assign(targets=[node.target], value=self.visit(node.value), type_comment=None)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        # Python 3.12.1 adds empty strings to the formats of f-strings.
        node.values = [each for each in node.values if not (isinstance(each, ast.Constant) and each.value == "")]
        return self.generic_visit(node)

    def _without_docstring(self, node: Member) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)
