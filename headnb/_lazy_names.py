"""Lazy loading of the public names.

An editor that completes `headnb.` inspects every name, and most of the modules import torch and transformers, which
takes seconds. Until its module is imported, a name therefore resolves to a placeholder: a function with the signature
and docstring read from the source, which imports and calls the real object.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb import _background_imports

if TYPE_CHECKING:
    from collections.abc import Callable


def resolve(name: str) -> Any:
    """Resolve a public name to its object, or to a placeholder if its module is not imported yet.

    Raises:
        AttributeError: it is not a public name.
    """
    module = public_modules().get(name)
    if module is None:
        raise AttributeError(f"module 'headnb' has no attribute {name!r}")
    return _import_name(module, name) if f"headnb.{module}" in sys.modules else _placeholder(module, name)


@functools.cache
def public_modules() -> dict[str, str]:
    """Public name -> defining module, read from the type stub `__init__.pyi`."""
    stub = ast.parse(Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}


def _import_name(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"headnb.{module}"), name)


@functools.cache
def _placeholder(module: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.find_spec(f"headnb.{module}")
    assert spec is not None  # noqa: S101  the stub names modules of this package
    assert spec.origin is not None  # noqa: S101
    source = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    *_overloads, definition = (node for node in source.body if isinstance(node, kinds) and node.name == name)

    def call(*args: Any, **kwargs: Any) -> Any:
        _background_imports.wait()
        return _import_name(module, name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__module__ = "headnb"  # pickle looks the name up there
    call.__doc__ = ast.get_docstring(definition)
    if isinstance(definition, ast.FunctionDef):
        call.__signature__ = _signature(definition)  # type: ignore[attr-defined]
    else:
        call.__mro_entries__ = lambda _: (_import_name(module, name),)  # type: ignore[attr-defined]  # for subclassing
    return call


def _signature(function: ast.FunctionDef) -> inspect.Signature:
    """Signature of a function definition, with annotations as text."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    parameters = [
        _parameter(arg, default, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for arg, default in zip(positional, defaults, strict=True)
    ]
    if spec.vararg:
        parameters.append(_parameter(spec.vararg, None, inspect.Parameter.VAR_POSITIONAL))
    parameters += [
        _parameter(arg, default, inspect.Parameter.KEYWORD_ONLY)
        for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    ]
    if spec.kwarg:
        parameters.append(_parameter(spec.kwarg, None, inspect.Parameter.VAR_KEYWORD))
    returned = ast.unparse(function.returns) if function.returns else inspect.Signature.empty
    return inspect.Signature(parameters, return_annotation=returned)


def _parameter(arg: ast.arg, default: ast.expr | None, kind: Any) -> inspect.Parameter:
    annotation = ast.unparse(arg.annotation) if arg.annotation else inspect.Parameter.empty
    value = inspect.Parameter.empty if default is None else _Default.of(default)
    return inspect.Parameter(arg.arg, kind, default=value, annotation=annotation)


class _Default:
    """Default that is not a literal, shown as its source."""

    def __init__(self, source: str) -> None:
        self._source = source

    @classmethod
    def of(cls, default: ast.expr) -> Any:
        try:
            return ast.literal_eval(default)
        except ValueError:
            return cls(ast.unparse(default))

    def __repr__(self) -> str:
        return self._source
