"""HTML and SVG from the files in `templates/`, by one Jinja2 environment that escapes every text.

A template marks what is markup already, such as a picture, as `|safe`. Every other text is also freed of control
characters, unless it is marked `|e`: texts that a model reads or writes are shown as they are.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.display.grid_text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, /, **values: object) -> str:
    """A template of this package, filled in."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  importing headnb stays quick

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_without_control_characters,
    )
    environment.globals["source_of"] = _source_of
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _without_control_characters(value: object) -> object:
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _source_of(content: str) -> str:
    """What a content security policy calls this script or style."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
