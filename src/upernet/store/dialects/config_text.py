"""Configurations that are Python programs, parsed and not executed."""

from __future__ import annotations

import ast
from typing import Any


def read_assignments(text: str) -> dict[str, Any]:
    """The top-level assignments of a configuration, parsed and not executed."""
    try:
        tree = ast.parse(text[:1_000_000])
        return {
            target.id: None if (value := _literal(node.value)) is ... else value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _literal(node: ast.expr) -> Any:
    """A value made of literals and `dict(…)`. Other expressions are `...`, in lists none, and left out of mappings."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {k.arg: value for k in node.keywords if k.arg and (value := _literal(k.value)) is not ...}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {k.value: value for k, v in pairs if isinstance(k, ast.Constant) and (value := _literal(v)) is not ...}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [None if (value := _literal(v)) is ... else value for v in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ...
