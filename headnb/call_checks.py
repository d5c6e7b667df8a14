"""Checks on calls of public functions: names of arguments, and their types against the annotations.

Text where a truth value, a number or a list is expected is refused: Python takes "false" for true and a name for a
list of letters, and a notebook's parameters may come as text.
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

MAX_SEED = 2**64 - 1  # of torch's generators
MAX_TRAINING_SEED = 2**32 - 1  # of numpy's global generator, which trainers seed
_SHARE_NAMES = {"level", "alpha"}
_LIST_TYPES = ("Sequence[", "Iterable[", "Collection[", "list[", "tuple[")
_NUMBER_TYPES = {"int": "a whole number", "float": "a number"}


def checked_seed(seed: object, name: str = "seed", most: int = MAX_SEED) -> int:
    """A seed that random, numpy and torch all take; trainers take those up to `MAX_TRAINING_SEED`.

    Raises:
        HeadnbError: it is another value.
    """
    if isinstance(seed, (bool, np.bool_)) or not hasattr(seed, "__index__"):
        raise HeadnbError(f"{name} must be a whole number, not {seed!r:.60}")
    if not 0 <= (whole := operator.index(seed)) <= most:
        raise HeadnbError(f"{name} must be from 0 to {most}, not {whole}")
    return whole


def checked_level(level: object, name: str = "level") -> float:
    """The level of an interval (or `alpha`), a share: raise HeadnbError unless it lies between 0 and 1."""
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        example = "0.05" if name == "alpha" else "0.95"
        raise HeadnbError(f"{name} must lie between 0 and 1, such as {example}; got {level!r}")
    return float(level)


def argument_checks(function: Callable[..., Any]) -> Callable[[dict[str, Any]], None]:
    """What checks the bound arguments of a function, and puts plain numbers in place of numpy's.

    Annotations that are checked: bool, int, float, lists and mappings, each also with `| None`. Arguments called
    `seed` are checked by `checked_seed`, those called `level` and `alpha` by `checked_level`.
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
    if kind == "float" and name in _SHARE_NAMES:
        return checked_level(value, name)
    if kind in _NUMBER_TYPES:
        return _number(name, value, kind)
    if isinstance(value, str) and "|" not in kind:
        if kind.startswith(_LIST_TYPES):
            raise HeadnbError(f"{name} must be a list, such as [{value!r:.60}], not the text {value!r:.60}")
        if kind.startswith(("Mapping[", "dict[")):
            raise HeadnbError(f"{name} must be a dict of names and values, not {value!r:.60}")
    return value


def _number(name: str, value: Any, kind: str) -> int | float:
    fits = hasattr(value, "__index__") if kind == "int" else isinstance(value, Real)
    if isinstance(value, (bool, np.bool_)) or not fits:
        raise HeadnbError(f"{name} must be {_NUMBER_TYPES[kind]}, not {value!r:.60}")
    if kind == "int":
        return operator.index(value)
    if not math.isfinite(value):
        raise HeadnbError(f"{name} must be a finite number, not {value}")
    return float(value)


class UnknownKeywordError(HeadnbError, TypeError):
    """A keyword argument that a function does not have; a TypeError too, as Python itself raises."""


def check_arguments(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """For public functions: a misspelt keyword is answered with the nearest ones, a value of another type refused."""
    signature, check = inspect.signature(function), argument_checks(function)
    known = signature.parameters
    takes_others = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name in kwargs:
            if name not in known and not takes_others:
                raise UnknownKeywordError(str(unknown_name(f"argument of {called}", name, known)))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says what is missing
        check(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call
