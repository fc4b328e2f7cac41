"""The hash of a Python migration that works on the connection itself.

It is of the syntax tree, by rules of our own, so that neither a formatter nor another version
of Python changes it. `docs/formats.md` states the rules; changing one breaks every history.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def syntax_hash(source: str) -> str:
    """SHA-256, 64 hex digits, of the syntax tree of a Python file without its `undo`."""
    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body if not (isinstance(node, _FUNCTIONS) and node.name == "undo")
    ]
    return sha256("".join(_canonical(tree)).encode("utf-8", "surrogatepass")).hexdigest()


class _Text(str):
    """A piece of the canonical text, told apart from a string in the tree."""

    __slots__ = ()


def _canonical(tree: ast.AST) -> Iterator[str]:
    """One text for one tree: node types with their non-empty fields in alphabetical order.

    Without recursion: a sum of a thousand strings is a tree a thousand levels deep.
    """
    todo: list[object] = [tree]
    while todo:
        value = todo.pop()
        if isinstance(value, _Text):
            yield value
            continue
        if isinstance(value, ast.AST):
            pieces: list[object] = [_Text(f"({type(value).__name__}")]
            for name in sorted(value._fields):
                field = _field(value, name)
                if name not in _LEFT_OUT and field is not None and field != []:
                    pieces += [_Text(f" {name}="), field]
            pieces.append(_Text(")"))
        elif isinstance(value, list):
            pieces = [_Text("[")]
            for item in value:
                pieces += [item, _Text(",")]
            pieces.append(_Text("]"))
        else:
            # ascii(), since what repr() shows as it is grows with each version of Unicode.
            pieces = [_Text(f"{type(value).__name__}:{value!a}")]
        todo += reversed(pieces)


def _field(node: ast.AST, name: str) -> object:
    value = getattr(node, name, None)
    if name == "body" and isinstance(node, (*_FUNCTIONS, ast.Module, ast.ClassDef)):
        return _without_docstring(value)
    if isinstance(node, ast.JoinedStr) and isinstance(value, list):
        # Some releases of Python 3.12 end `{x:{y}}` in an empty text.
        return [item for item in value if getattr(item, "value", None) != ""]
    return value


def _without_docstring(body: Any) -> object:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body
