"""Type checks of notebook parameters against the annotations in the parameters cell.

papermill passes a value as text unless it is a number, True, False or None: `-p full false` sets the text "false",
which is truthy, and `-p tasks gsm8k` sets text instead of a list. Such values are rejected, not converted, because the
conversion would be a guess; the error shows the papermill option for the type.
"""

from __future__ import annotations

import ast
import contextlib
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SIMPLE_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "list": list,
    "dict": dict,
    "None": type(None),
}


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Check a notebook's parameters against the types in its parameters cell, after papermill has set them.

    A parameters cell has only lines such as `steps: int = 30`.

    Args:
        namespace: the notebook's `globals()`; the cells are read from IPython's `In`.

    Raises:
        HeadnbError: a parameter has another type, or a list has a duplicate value.
    """
    typed: dict[str, str] = {}
    for cell in namespace.get("In", []):
        typed |= _parameters_of(cell)
    for name, annotation in typed.items():
        if name in namespace:
            value = namespace[name]
            check_parameter(name, value, annotation, hint=_papermill_form(name, value, annotation))


def check_parameter(name: str, value: Any, annotation: str, where: str = "", *, hint: str = "") -> None:
    """Check one parameter; the error has the notebook's name (`where`) and a `hint` how to pass the value.

    Raises:
        HeadnbError: the value has another type, or is a list with a duplicate value.
    """
    of = f"parameter {name}{where and f' of {where}'}"
    if not type_check(annotation, of)(value):
        raise HeadnbError(f"{of} must be {annotation}, not {value!r:.60}{hint and f' ({hint})'}")
    if isinstance(value, list):
        twice = next((entry for index, entry in enumerate(value) if entry in value[:index]), None)
        if twice is not None:
            raise HeadnbError(f"{of} lists {twice!r:.60} twice")


def type_check(annotation: str, where: str) -> Callable[[Any], bool]:
    """Function from a value to whether it has the annotated type: a simple type, list[...], dict[..., ...] or a union.

    Raises:
        HeadnbError: the annotation has an unsupported type.
    """

    def check_of(kind: ast.expr) -> Callable[[Any], bool]:
        match kind:
            case ast.BinOp(left, ast.BitOr(), right):
                one, other = check_of(left), check_of(right)
                return lambda value: one(value) or other(value)
            case ast.Constant(value=None):
                return lambda value: value is None
            case ast.Name(name) if name in _SIMPLE_TYPES:
                types = _SIMPLE_TYPES[name]
                return lambda value: isinstance(value, types) and (name == "bool" or not isinstance(value, bool))
            case ast.Subscript(ast.Name("list"), inner):
                entry = check_of(inner)
                return lambda value: isinstance(value, list) and all(map(entry, value))
            case ast.Subscript(ast.Name("dict"), ast.Tuple([key, inner])):
                of_key, of_entry = check_of(key), check_of(inner)
                return lambda value: (
                    isinstance(value, dict) and all(map(of_key, value)) and all(map(of_entry, value.values()))
                )
        raise HeadnbError(
            f"{where} has the type {annotation}; supported: {', '.join(_SIMPLE_TYPES)}, list[...], dict[..., ...]"
        )

    try:
        return check_of(ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        raise HeadnbError(f"{where} has an annotation that is not a type: {annotation}") from None


def _parameters_of(cell: str) -> dict[str, str]:
    """Parameter -> annotation, for a cell that has only annotated assignments; empty for other cells."""
    lines: list[ast.stmt] = []
    with contextlib.suppress(SyntaxError):
        lines = ast.parse(cell).body
    typed = [line for line in lines if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    if len(typed) < len(lines):
        return {}
    return {ast.unparse(line.target): ast.unparse(line.annotation) for line in typed}


def _papermill_form(name: str, value: Any, annotation: str) -> str:
    """The papermill option for a value of this type."""
    if annotation == "bool":
        return f"papermill takes -p {name} True or -p {name} False"
    if annotation.startswith("list[") and not isinstance(value, list):
        return f'papermill takes lists as -y "{name}: [{value}]"'
    if annotation == "str":
        return f"papermill takes text that looks like a number as -r {name} {value}"
    return ""
