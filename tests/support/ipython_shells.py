"""An IPython shell with headnb loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headnb
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr


PAIRS = [("2 + 3 = ", "5"), ("The sky is", " blue"), ("def square(n):\n", "    return n * n"), ("One, two,", " three")]


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()  # `display` publishes to the global instance
    shell.run_line_magic("load_ext", "headnb")
    shell.push({"model": tiny_model(), "tokenizer": tiny_tokenizer(), "pairs": PAIRS})
    yield shell
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, code: str) -> tuple[Any, Any]:
    """The cell's result, and its captured stdout (with the text of the last value), stderr and displays."""
    with capture_output() as captured:
        result = shell.run_cell(code, store_history=True)
    return result, captured


def error_of(shell: InteractiveShell, code: str) -> str:
    """The error line that a user sees; anything other than a single UsageError line fails."""
    result, captured = run(shell, code)
    assert result.error_in_exec is not None
    lines = [line for line in captured.stderr.splitlines() if line.strip() and "samples [" not in line]
    errors = [line[line.index("UsageError: ") :] for line in captured.stderr.splitlines() if "UsageError: " in line]
    assert len(errors) == 1, captured.stderr
    assert len(lines) <= 1, captured.stderr
    assert "Traceback" not in captured.stderr + captured.stdout
    return errors[0]


def completions(shell: InteractiveShell, code: str) -> list[str]:
    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(code, len(code))]


def other_tokenizer() -> Any:
    """A tokenizer of single bytes; its token ids differ from those of `tiny_tokenizer`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), start=5)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, name_or_path="somebody/else")


def raising(error: BaseException) -> Any:
    """A function that raises `error`."""

    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


def scores_of(shell: InteractiveShell) -> xr.Dataset:
    return headnb.score_heads(shell.user_ns["model"], shell.user_ns["tokenizer"], PAIRS)
