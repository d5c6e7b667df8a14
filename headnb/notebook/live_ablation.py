"""Ablation with its progress in a live display, for `%headablate` and `headnb ablate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from headnb.display.live import LiveState
from headnb.errors import HeadnbError, first_line

if TYPE_CHECKING:
    import xarray as xr

    from headnb.display.live import LiveGrid
    from headnb.scoring.ablation import Generation
    from headnb.tasks.loading import Task


def ablate_live(live: LiveGrid, model: Any, tokenizer: Any, task: Task, heads: str, **settings: Any) -> xr.Dataset:
    """Losses before and after, as `headnb.ablate` returns them; `settings` are its keyword arguments."""
    from headnb.scoring.ablation import ablate  # noqa: PLC0415  loads torch

    def report(done: int, total: int) -> None:
        live.show(LiveState(done, total, "samples", f"{done} of {total} samples", "", lambda: None, lambda: None))

    return ablate(model, tokenizer, task, heads, **settings, on_progress=report)


def texts_before_and_after(
    live: LiveGrid, model: Any, tokenizer: Any, task: Task, heads: str, tokens: int, **settings: Any
) -> Generation | None:
    """The first sample's answer before and after, and the display is removed; None where no text can be generated.

    `settings` are those of `ablate_live`. An error of the generation is printed: the losses are measured already.
    """
    from headnb.scoring.ablation import generate_both  # noqa: PLC0415  loads torch

    try:
        if tokens <= 0 or tokenizer is None:
            return None
        live.message("generating texts before and after")
        shared = {name: settings[name] for name in ("factor", "encoding")}
        return generate_both(model, tokenizer, task, heads, **shared, max_new_tokens=tokens)
    except HeadnbError:  # the first sample may have no prompt
        return None
    except Exception as error:  # noqa: BLE001  the losses are returned without texts
        print(f"no texts before and after: {first_line(error)}", file=sys.stderr)  # noqa: T201
        return None
    finally:
        live.discard()
