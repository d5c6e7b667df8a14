"""Notes below a grid on special tokens and lost text in its samples: see `row_values.NOTICES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def text_notes(count: Callable[[str], int | None]) -> list[str]:
    """The notes; `count` returns a numeric attribute by name, or None if it is missing."""
    notes = []
    if begun := count("bos_in_text"):
        notes.append(f"{begun} prompt(s) already begin with the beginning-of-sequence token; none was added.")
    if ended := count("eos_in_text"):
        notes.append(f"{ended} completion(s) already end with the end-of-sequence token; none was added.")
    if special := count("special_tokens_in_text"):
        samples = count("samples_with_special_tokens")
        notes.append(f"Special tokens in the text of {samples} sample(s): {special}, read as control tokens.")
    if losing := count("samples_losing_text"):
        notes.append(f"The chat template omits text of the prompt in {losing} sample(s).")
    return notes
