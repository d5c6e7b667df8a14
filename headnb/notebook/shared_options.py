"""Options that the magics and the commands share, each defined once.

An option has the name and the default of the keyword argument that it sets. The default is repeated here because
importing `score_heads` loads torch; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_SAMPLES = 64  # default number of samples of a named task


@dataclass(frozen=True)
class Option:
    """One option of a magic or a command."""

    name: str
    help: str
    default: Any = None
    kind: Callable[[str], object] = str  # converts the typed text to the value; bool: a flag without a value
    short: str = ""
    metavar: str | None = None
    settable: bool = False  # by %config HeadMagics.NAME
    choices: tuple[str, ...] = ()  # values for tab completion
    several: bool = False  # may be given several times

    @property
    def flags(self) -> list[str]:
        """Flags as typed, the long form last."""
        return [flag for flag in (self.short, f"--{self.name.replace('_', '-')}") if flag]


def chosen(options: Iterable[Option], given: Mapping[str, Any], settings: object = None) -> dict[str, Any]:
    """Keyword arguments from the options that a command was given; settable options default to `settings`."""
    values = {option: given[option.name] for option in options if option.name in given}
    return {
        option.name: option.kind(getattr(settings, option.name)) if option.settable and value is None else value
        for option, value in values.items()
    }


def method_options(text: str) -> dict[str, Any]:
    """Parse `steps=50,penalty=0.2` to a dict; `attattr.steps=50`, for several methods, to a dict by method.

    Raises:
        HeadnbError: the text has another form, or a name is given twice.
    """
    options: dict[str, Any] = {}
    try:
        for name, _, number in (part.partition("=") for part in text.split(",")):
            value = int(number) if number.strip().isdecimal() else float(number)
            method, _, key = name.strip().rpartition(".")
            own = options.setdefault(method, {}) if method else options
            if key in own:
                raise HeadnbError(f"--options {text!r:.60}: {name.strip():.60} is given twice")
            own[key] = value
    except ValueError:
        raise HeadnbError(f"--options {text!r:.60}: write NAME=NUMBER, for instance steps=50") from None
    return options


def method_names(text: str) -> str | list[str]:
    """Parse `activation` or `activation,entropy`, the `method` of `headnb.score_heads`.

    Raises:
        HeadnbError: a name is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise HeadnbError(f"--method {text!r:.60}: write names with commas and no spaces, such as activation,entropy")
    return names if "," in text else text


def copy_score(text: str) -> str:
    """The `copy` of `headnb.head_roles`.

    Raises:
        HeadnbError: there is no such copy score.
    """
    if text not in COPY.choices:
        raise unknown_name("copy score", text, COPY.choices)
    return text


def tracked_steps(text: str) -> int | list[int]:
    """Parse `5` or `0,1,2,5,10`, the `every` of `headnb.finetune`.

    Raises:
        HeadnbError: the text has another form.
    """
    try:
        steps = [int(word) for word in text.split(",")]
    except ValueError:
        raise HeadnbError(f"--every must be a number of steps or a list such as 0,1,2,5,10, not {text!r:.60}") from None
    return steps if "," in text else steps[0]


_COUNT = f"Number of samples. Default: at most {MAX_SAMPLES}; in a notebook, all samples if the task is a variable."
_LOSS = "Loss reduction: sample-mean (each sample's own mean), batch-mean (as in the paper's script) or sum."
_OPTIONS = (
    "Options of the method: steps=50 for attattr, steps=50,penalty=0.2 for gates; for several methods attattr.steps=50."
)
_OUT = (
    "Zarr store for the scores, or for several tasks or methods a folder with one store for each; run the same call "
    "again to resume an interrupted run."
)
_DEVICES = ("auto", "cpu", "cuda", "mps")
_DTYPES = ("auto", "float32", "bfloat16", "float16")

SAMPLES = Option("samples", _COUNT, kind=int, short="-n")
TRACKED_SAMPLES = replace(
    SAMPLES, help=f"Number of samples of each tracked task. Default: at most {MAX_SAMPLES}, chosen by --budget."
)
SPLIT = Option(
    "split",
    "Split, if the task has several; for a hub data set also a part of one, such as test[:100].",
    "test",
    choices=("train", "validation", "test"),
)
CONFIG = Option("config", "Configuration, if a hub data set has several, for example main.")
SEED = Option("seed", "Random seed, for example for the subset of samples and the processing order.", 0, int)
METHOD = Option("method", "Score method; %headmethods and `headnb methods` list them.", "activation", settable=True)
METHODS = Option(
    "method",
    "Score method, or several such as activation,entropy, which share one pass; %headmethods and `headnb methods` list "
    "them.",
    "activation",
    method_names,
    settable=True,
)
LOSS = Option("loss", _LOSS, "sample-mean", settable=True, choices=("sample-mean", "batch-mean", "sum"))
ENCODING = Option(
    "encoding",
    "How prompt and completion become tokens: official (each tokenized alone, as in the paper's script) or trl (as one "
    "text, as TRL's trainers do).",
    "official",
    choices=("official", "trl"),
)
UNTIL = Option(
    "until",
    "Stop when the scores are precise enough, after 64 samples or more: 0.02 (relative standard error of the pattern), "
    "top20 (halves of the samples agree on 90 % of the top 20 heads) or reliability0.9.",
)
OPTIONS = Option("options", _OPTIONS, kind=method_options, metavar="NAME=NUMBER,...")
OUT = Option("out", _OUT, metavar="PATH")
BATCH_TOKENS = Option("batch_tokens", "Maximum number of tokens per batch, with padding.", 4096, int, settable=True)
MAX_LENGTH = Option("max_length", "Truncate samples to this number of tokens.", kind=int)
ADAPTER = Option("adapter", "PEFT adapter to load into the model.", metavar="PATH")
REVISION = Option("revision", "Branch, tag or commit of a hub model.")
DEVICE = Option("device", "Device of the model: auto, cpu, cuda, cuda:1, mps.", "auto", settable=True, choices=_DEVICES)
DTYPE = Option("dtype", f"Dtype of the weights: {', '.join(_DTYPES)}.", "auto", settable=True, choices=_DTYPES)
ALPHA = Option("alpha", "Mark heads with a q-value below this.", 0.05, float)
SCALE_FREE = Option("scale_free", "Divide the scores by their mean over heads first.", False, bool)
FACTOR = Option("factor", "Factor for the heads' outputs; 0 ablates the heads.", 0.0, float)
CONTROLS = Option(
    "controls", "Number of random control sets, each with as many other heads of the same layers.", 0, int
)
TOKENS = Option("tokens", "Number of tokens to generate before and after; 0: no text.", 40, int)
STEPS = Option("steps", "Number of optimizer steps.", 60, int)
EVERY = Option(
    "every",
    "Score every K steps, or at steps 0,1,2,5,10. Default: chosen by --budget.",
    None,
    tracked_steps,
    metavar="K",
)
BUDGET = Option(
    "budget",
    "Maximum tracking time as a share of the training time; determines steps and samples that are not given. "
    "Default: 0.25, unless --every is given.",
    kind=float,
    metavar="SHARE",
)
ANSWERS = Option(
    "answers",
    "Generate this number of answers for each tracked task at every tracked step, and compare them with the expected "
    "ones; 0: none.",
    0,
    int,
)
TRACK = Option(
    "track",
    "Score this task during training; may be given several times. Default: the test split of TASK.",
    metavar="TASK",
    several=True,
)
RESUME = Option("resume", "Resume from the last checkpoint in --out.", False, bool)
BATCH_SIZE = Option("batch_size", "Samples per optimizer step.", 8, int)
LEARNING_RATE = Option("learning_rate", "Learning rate. Default: 2e-4, or 2e-5 with --full.", kind=float)
ONLINE = Option("online", "Also score the training batches, in the backward pass of the training.", False, bool)
REPORT_TO = Option(
    "report_to",
    "Log to a tracker: tensorboard (needs --out), wandb or trackio.",
    "none",
    choices=("tensorboard", "wandb", "trackio", "none"),
)
COPY = Option(
    "copy",
    "Copy score: forced (attention with the answers given) or retrieval (as published; the model generates).",
    "forced",
    copy_score,
    choices=("forced", "retrieval"),
)
INTO = Option("into", "Notebook variable for the result.", metavar="NAME")  # magics only

SAMPLING = (SAMPLES, SPLIT, CONFIG, SEED)  # select the samples
SETTINGS = (METHODS, LOSS, ENCODING, UNTIL, OPTIONS)  # checked by `check_settings` before a model is loaded
WORK = (SEED, OUT, BATCH_TOKENS, MAX_LENGTH)  # other arguments of `score_heads`
ROLES = (COPY, SEED, BATCH_TOKENS, MAX_LENGTH)  # arguments of `head_roles`
LOADING = (ADAPTER, REVISION, DEVICE, DTYPE)  # arguments of `load_model`
COMPARING = (ALPHA, SCALE_FREE)  # arguments of `compare`
ABLATION = (FACTOR, CONTROLS, ENCODING, SEED, BATCH_TOKENS, MAX_LENGTH)  # arguments of `ablate`
ABLATING = (FACTOR, CONTROLS, TOKENS, *SAMPLING, ENCODING, BATCH_TOKENS, MAX_LENGTH)
SCORE = (*SAMPLING, *SETTINGS, *WORK[1:], *LOADING)
STEPPING = (STEPS, EVERY, BUDGET, ANSWERS, BATCH_SIZE, LEARNING_RATE, ONLINE, RESUME, REPORT_TO)
TUNING = (SEED, METHOD, ENCODING, MAX_LENGTH, *STEPPING)  # arguments of `finetune`
TUNING_MODEL = (REVISION, DEVICE, DTYPE)  # arguments of `load_model` for a fine-tuning, which makes the adapter
