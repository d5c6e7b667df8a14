"""Checks of calls of public functions: names of arguments, and types against the annotations.

A string in place of a bool, a number or a list is refused: Python treats "false" as true and a name as a list of
letters, and parameters of notebooks may arrive as text.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from numbers import Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

MAX_SEED = 2**64 - 1  # limit of torch's generators
MAX_TRAINING_SEED = 2**32 - 1  # limit of numpy's global generator, which trainers seed
_FRACTION_NAMES = {"level", "alpha"}
_LIST_TYPES = ("Sequence[", "Iterable[", "Collection[", "list[", "tuple[")
_NUMBER_TYPES = {"int": "a whole number", "float": "a number"}


def checked_seed(seed: object, name: str = "seed", most: int = MAX_SEED) -> int:
    """Check a seed for random, numpy and torch, and return it as int; trainers accept up to `MAX_TRAINING_SEED`.

    Raises:
        HeadnbError: it is not a whole number from 0 to `most`.
    """
    if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
        raise HeadnbError(f"{name} must be a whole number, not {seed!r:.60}")
    if not 0 <= (whole := operator.index(seed)) <= most:
        raise HeadnbError(f"{name} must be from 0 to {most}, not {whole}")
    return whole


def checked_level(level: object, name: str = "level") -> float:
    """Check the level of an interval (or `alpha`).

    Raises:
        HeadnbError: it is not a number between 0 and 1.
    """
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        example = "0.05" if name == "alpha" else "0.95"
        raise HeadnbError(f"{name} must lie between 0 and 1, such as {example}; got {level!r}")
    return float(level)


def argument_checks(function: Callable[..., Any]) -> Callable[[dict[str, Any]], None]:
    """Make a check of a function's bound arguments, which also replaces numpy numbers by Python numbers.

    It checks the annotations bool, int, float, lists and mappings, each also with `| None`. Arguments named `seed` are
    checked by `checked_seed`, those named `level` or `alpha` by `checked_level`.
    """
    kinds = {
        name: annotation.removesuffix("| None").strip()
        for name, annotation in inspect.get_annotations(function).items()
        if isinstance(annotation, str) and name != "return"
    }
    optional = {name for name, annotation in inspect.get_annotations(function).items() if "| None" in str(annotation)}

    def check(arguments: dict[str, Any]) -> None:
        for name, value in arguments.items():
            if name in kinds and not (value is None and name in optional):
                arguments[name] = _checked(name, value, kinds[name])

    return check


def _checked(name: str, value: Any, kind: str) -> Any:
    if name == "seed" and kind == "int":
        return checked_seed(value)
    if kind == "bool":
        if not isinstance(value, (bool, np.bool_)):
            raise HeadnbError(f"{name} must be True or False, not {value!r:.60}")
        return bool(value)
    if kind == "float" and name in _FRACTION_NAMES:
        return checked_level(value, name)
    if kind in _NUMBER_TYPES:
        return checked_number(name, value, kind)
    if isinstance(value, str) and "|" not in kind:
        if kind.startswith(_LIST_TYPES):
            raise HeadnbError(f"{name} must be a list, such as [{value!r:.60}], not the text {value!r:.60}")
        if kind.startswith(("Mapping[", "dict[")):
            raise HeadnbError(f"{name} must be a dict of names and values, not {value!r:.60}")
    return value


def checked_number(name: str, value: Any, kind: str) -> int | float:
    """Check a number, and return it as a Python number; `kind` is "int" or "float".

    Raises:
        HeadnbError: it is a bool or not a number of this kind, or it is not finite.
    """
    fits = hasattr(value, "__index__") if kind == "int" else isinstance(value, Real)
    if isinstance(value, (bool, np.bool_)) or not fits:
        raise HeadnbError(f"{name} must be {_NUMBER_TYPES[kind]}, not {value!r:.60}")
    if kind == "int":
        return operator.index(value)
    if not math.isfinite(value):
        raise HeadnbError(f"{name} must be a finite number, not {value}")
    return float(value)


class UnknownKeywordError(HeadnbError, TypeError):
    """Unknown keyword argument; also a TypeError, as Python itself raises."""


def check_arguments(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a public function to check its arguments: unknown keywords and wrong types raise a HeadnbError."""
    signature, check = inspect.signature(function), argument_checks(function)
    known = signature.parameters
    takes_others = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name not in known and not takes_others:
                raise UnknownKeywordError(str(unknown_name(f"argument of {called}", name, known)))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # raises Python's own error
        check(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call
