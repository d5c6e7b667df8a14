"""Options that the magics and `headnb score` share, each defined once.

An option is named after the keyword argument that it sets, and repeats its default, since importing `score_heads` loads
torch: a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_SAMPLES = 64  # of a task that is named


@dataclass(frozen=True)
class Option:
    """One option of a magic or a command."""

    name: str
    help: str
    default: Any = None
    kind: Callable[[str], object] = str  # makes the value of what is typed
    short: str = ""
    metavar: str | None = None
    settable: bool = False  # by %config HeadMagics.NAME
    choices: tuple[str, ...] = ()  # what Tab completes

    @property
    def flags(self) -> list[str]:
        """As it is typed, the long form last."""
        return [flag for flag in (self.short, f"--{self.name.replace('_', '-')}") if flag]


def chosen(options: Iterable[Option], given: Mapping[str, Any], settings: object = None) -> dict[str, Any]:
    """Keyword arguments: the options that a command has, from `settings` where it was given none."""
    values = {option: given[option.name] for option in options if option.name in given}
    return {
        option.name: getattr(settings, option.name) if option.settable and value is None else value
        for option, value in values.items()
    }


def method_options(text: str) -> dict[str, int | float]:
    """`steps=50,penalty=0.2` as a dict; any other form is a HeadnbError."""
    try:
        parts = [part.partition("=") for part in text.split(",")]
        return {name.strip(): int(number) if number.strip().isdecimal() else float(number) for name, _, number in parts}
    except ValueError:
        raise HeadnbError(f"--options {text!r:.60}: write NAME=NUMBER, for instance steps=50") from None


_COUNT = f"Number of samples. Default: all that a variable holds, else at most {MAX_SAMPLES}."
_LOSS = "sample-mean (each sample's own mean), batch-mean (as the paper's script) or sum."
_OPTIONS = "Settings of the method itself: steps=50 for attattr, steps=50,penalty=0.2 for gates."
_DEVICES = ("auto", "cpu", "cuda", "mps")
_DTYPES = ("auto", "float32", "bfloat16", "float16")

SAMPLES = Option("samples", _COUNT, kind=int, short="-n")
SPLIT = Option("split", "Split of the task, where it has several.", "test", choices=("train", "validation", "test"))
SEED = Option("seed", "Seed of all that is random, such as the draw of samples and the order of work.", 0, int)
METHOD = Option("method", "Head score; %headmethods and `headnb methods` list them.", "activation", settable=True)
LOSS = Option("loss", _LOSS, "sample-mean", settable=True, choices=("sample-mean", "batch-mean", "sum"))
ENCODING = Option(
    "encoding", "official (prompt and completion apart) or trl (together).", "official", choices=("official", "trl")
)
UNTIL = Option("until", "Stop at a standard error (0.02), at stable top heads (top20), or at reliability0.9.")
OPTIONS = Option("options", _OPTIONS, kind=method_options, metavar="NAME=NUMBER,...")
OUT = Option("out", "Zarr store for the scores; the same call again continues an interrupted run.", metavar="PATH")
BATCH_TOKENS = Option("batch_tokens", "Tokens of a batch, padding included.", 4096, int, settable=True)
MAX_LENGTH = Option("max_length", "Cut longer samples to so many tokens.", kind=int)
ADAPTER = Option("adapter", "PEFT adapter to put on the model.", metavar="PATH")
REVISION = Option("revision", "Branch, tag or commit of a hub model.")
DEVICE = Option("device", "Device of the model: auto, cpu, cuda, cuda:1, mps.", "auto", settable=True, choices=_DEVICES)
DTYPE = Option("dtype", f"Type of the weights: {', '.join(_DTYPES)}.", "auto", settable=True, choices=_DTYPES)
INTO = Option("into", "Variable of the notebook to keep the result in.", metavar="NAME")  # of the magics alone

DRAW = (SAMPLES, SPLIT, SEED)  # which samples
SETTINGS = (METHOD, LOSS, ENCODING, UNTIL, OPTIONS)  # what `check_settings` checks before a model is loaded
WORK = (SEED, OUT, BATCH_TOKENS, MAX_LENGTH)  # what else `score_heads` takes
LOADING = (ADAPTER, REVISION, DEVICE, DTYPE)  # what `load_model` takes
SCORE = (*DRAW, *SETTINGS, *WORK[1:], *LOADING)
