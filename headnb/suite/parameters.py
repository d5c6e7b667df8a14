"""Parameters of notebooks, checked against the types that their cell gives them.

papermill hands text that it does not know as a number, True, False or None on as text: `-p full false` sets the text
"false", which counts as true, and `-p tasks gsm8k` a name where a list is expected. Such values are refused, not
converted: what text means is for the user to say, and papermill has a form for each type.
"""

from __future__ import annotations

import ast
import contextlib
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    A parameters cell holds nothing but lines such as `steps: int = 30`.

    Args:
        namespace: the notebook's `globals()`; the cells are read from IPython's `In`.

    Raises:
        HeadnbError: a parameter is of another type, or a list holds a value twice.
    """
    typed: dict[str, str] = {}
    for cell in namespace.get("In", []):
        typed |= _parameters_of(cell)
    for name, annotation in typed.items():
        if name in namespace:
            value = namespace[name]
            check_parameter(name, value, annotation, hint=_papermill_form(name, value, annotation))


def check_parameter(name: str, value: Any, annotation: str, where: str = "", *, hint: str = "") -> None:
    """Check one parameter; `where` names its notebook, `hint` says how to give the value.

    Raises:
        HeadnbError: it is of another type, or a list that holds a value twice.
    """
    of = f"parameter {name}{where and f' of {where}'}"
    if not fits(value, annotation, of):
        raise HeadnbError(f"{of} is {annotation}, not {value!r:.60}{hint and f' ({hint})'}")
    if isinstance(value, list):
        twice = next((each for place, each in enumerate(value) if each in value[:place]), None)
        if twice is not None:
            raise HeadnbError(f"{of} has {twice!r:.60} twice")


def fits(value: Any, annotation: str, where: str) -> bool:
    """Whether a value is of the type that an annotation names: plain ones, list[...], dict[..., ...] and unions.

    Raises:
        HeadnbError: the annotation names another type.
    """

    def of_kind(value: Any, kind: ast.expr) -> bool:
        match kind:
            case ast.BinOp(left, ast.BitOr(), right):
                one, other = of_kind(value, left), of_kind(value, right)  # both, so that no unknown word is passed over
                return one or other
            case ast.Constant(value=None):
                return value is None
            case ast.Name(name) if name in _SIMPLE_TYPES:
                return isinstance(value, _SIMPLE_TYPES[name]) and (name == "bool" or not isinstance(value, bool))
            case ast.Subscript(ast.Name("list"), inner):
                return all([of_kind(entry, inner) for entry in value] if isinstance(value, list) else [False])
            case ast.Subscript(ast.Name("dict"), ast.Tuple([key, inner])):
                if not isinstance(value, dict):
                    return False
                return all(of_kind(name, key) and of_kind(entry, inner) for name, entry in value.items())
        raise HeadnbError(
            f"{where} has the type {annotation}; known are {', '.join(_SIMPLE_TYPES)}, list[...], dict[..., ...]"
        )

    try:
        return of_kind(value, ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        raise HeadnbError(f"{where} has an annotation that is not a type: {annotation}") from None


def _parameters_of(cell: str) -> dict[str, str]:
    """Parameter -> annotation of a cell that holds nothing but typed assignments; empty for others."""
    lines: list[ast.stmt] = []
    with contextlib.suppress(SyntaxError):
        lines = ast.parse(cell).body
    typed = [line for line in lines if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    if len(typed) < len(lines):
        return {}
    return {ast.unparse(line.target): ast.unparse(line.annotation) for line in typed}


def _papermill_form(name: str, value: Any, annotation: str) -> str:
    """How papermill is given the value that may be meant."""
    if annotation == "bool":
        return f"papermill takes -p {name} True or -p {name} False"
    if annotation.startswith("list[") and not isinstance(value, list):
        return f'papermill takes lists as -y "{name}: [{value}]"'
    if annotation == "str":
        return f"papermill takes text that looks like a number as -r {name} {value}"
    return ""
