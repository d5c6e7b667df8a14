"""Worker program that renders chat templates; it imports jinja2, but neither headnb nor torch.

A template is a program by the author of the model. It may loop forever or fill the memory, and the process that runs it
can stop neither. So this process limits itself: `SECONDS` of processor time for one rendering, after which the system
ends the process, and `MEMORY` bytes in total.

It reads one JSON object per line, `{"template": ..., "variables": {...}}`, and answers each with `{"text": ...}`,
`{"error": ...}` or `{"limit": ...}`. The jinja2 environment has the sandbox, filters, globals and tags of
`apply_chat_template` in transformers. (`tests/tasks/test_chat_rows.py` compares the two.)
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

SECONDS = 10.0
MEMORY = 2**30
LONGEST = 2**26  # characters of a rendered text


class _Generation(jinja2.ext.Extension):
    """The tag `{% generation %}`, which marks the text of the assistant; the text is unchanged."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """A `dict` for templates, without the attributes of the type."""

    def __call__(self, *args: Any, **entries: Any) -> dict[Any, Any]:
        return dict(*args, **entries)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """A `namespace` for templates that rejects names with a leading underscore."""

    def __init__(*args: Any, **entries: Any) -> None:  # an entry may be called self
        for name in (given := dict(*args[1:], **entries)):
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no attribute {name!r}")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().strftime(form)  # noqa: DTZ005  the user's own time, as in transformers


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals |= {"dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(template)


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        text = _compiled(request["template"]).render(request["variables"])
    except MemoryError:
        return {"limit": f"it takes more than {MEMORY // 2**20} MB of memory"}
    except Exception as error:  # noqa: BLE001  an untrusted program may raise anything
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": text} if len(text) <= LONGEST else {"limit": f"it writes more than {LONGEST} characters"}


def main() -> None:
    """Answer requests until the input ends."""
    limit_time: Any = float  # no limit
    with contextlib.suppress(ImportError, ValueError, OSError):  # not available on Windows
        import resource  # noqa: PLC0415
        import signal  # noqa: PLC0415

        limit_time = functools.partial(signal.setitimer, signal.ITIMER_PROF)  # its signal ends the process
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin.buffer:
        limit_time(SECONDS)
        try:
            answer = json.dumps(_answer(json.loads(line)))
        except MemoryError:
            answer = json.dumps({"limit": "its text takes too much memory"})
        limit_time(0)
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
