"""HTML and SVG from the files in `templates/`, rendered by one Jinja2 environment that escapes every text.

A template marks content that is already markup, such as a picture, as `|safe`. Control characters of other texts are
written out in hexadecimal, unless a template marks the text as `|e`: prompts and completions are shown unchanged.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, /, **values: object) -> str:
    """Render a template of this package with the given values."""
    return _environment().get_template(template).render(values)


def replace_texts(markup: str, texts: Mapping[str, str]) -> str:
    """Replace texts (old -> new) in rendered markup, where they are escaped for HTML or for JSON; longest first."""
    from jinja2.filters import do_forceescape  # noqa: PLC0415
    from jinja2.utils import htmlsafe_json_dumps  # noqa: PLC0415

    for old, new in sorted(texts.items(), key=lambda pair: -len(pair[0])):
        for escape in (do_forceescape, htmlsafe_json_dumps):
            markup = markup.replace(str(escape(old)).strip('"'), str(escape(new)).strip('"'))
    return markup


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  keeps the import of headnb fast

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_write_out_control_characters,
    )
    environment.globals["source_of"] = script_source
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _write_out_control_characters(value: object) -> object:
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def script_source(content: str) -> str:
    """The source of a script or style in a content security policy: its SHA-256 hash."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
