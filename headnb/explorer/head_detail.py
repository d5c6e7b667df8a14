"""Details of one head for the explorer: the histogram of its scores over samples, and the strongest samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.head_names import parse_heads
from headnb.stats.patterns import pattern_units
from headnb.tasks.chat_rows import message_text
from headnb.tasks.samples import Sample, TokenSample

if TYPE_CHECKING:
    import xarray as xr
    from transformers import PreTrainedTokenizerBase

    from headnb.tasks.loading import Task
    from headnb.tasks.samples import Text

MAX_BINS = 40
MAX_SAMPLES = 12
MAX_TEXT_LENGTH = 240


def head_detail(
    scores: xr.Dataset, name: str, task: Task | None = None, tokenizer: PreTrainedTokenizerBase | None = None
) -> dict[str, Any]:
    """Details of one head as plain values for the front end.

    Returns:
        `head`, `task`, `method`, `units`; `samples` (their number); `mean` and `spread` (standard deviation) of the
        signed score; `counts` and `edges` of its histogram; `strongest`, the samples with the largest absolute score,
        with `place` (index in the task, -1 if the sample is not available), `id`, `score`, `loss`, `prompt` and
        `completion`.
    """
    ((layer, head),) = parse_heads(name)
    values = scores["score"].sel(layer=layer, head=head).values.astype(np.float64)  # (n,)
    finite = values[np.isfinite(values)]
    counts, edges = histogram(finite)
    order = np.argsort(-np.abs(np.nan_to_num(values)), kind="stable")[: MAX_SAMPLES if len(finite) else 0]
    ids = scores["sample"].values.tolist()
    losses = scores["loss"].values.tolist() if "loss" in scores else [math.nan] * len(ids)
    indices = {key: index for index, key in enumerate(task.ids)} if task is not None else {}
    strongest = []
    for position in order:
        index = indices.get(ids[position], -1)
        prompt, completion = sample_texts(task, index, tokenizer)
        strongest.append(
            {
                "place": index,
                "id": str(ids[position]),
                "score": float(values[position]),
                "loss": _number(losses[position]),
                "prompt": prompt,
                "completion": completion,
            }
        )
    return {
        "head": name,
        "task": str(scores.attrs.get("task", "")),
        "method": str(scores.attrs.get("method", "")),
        "units": pattern_units(scores),
        "samples": len(finite),
        "mean": _number(float(finite.mean()) if len(finite) else math.nan),
        "spread": _number(float(finite.std(ddof=1)) if len(finite) > 1 else math.nan),
        "counts": counts,
        "edges": edges,
        "strongest": strongest,
    }


def histogram(values: np.ndarray) -> tuple[list[int], list[float]]:
    """Counts (bins) and edges (bins + 1) by numpy's "auto" rule, with at most MAX_BINS bins."""
    if not len(values):
        return [], []
    edges = np.histogram_bin_edges(values, "auto")
    if len(edges) - 1 > MAX_BINS:
        edges = np.histogram_bin_edges(values, MAX_BINS)
    return np.histogram(values, edges)[0].tolist(), edges.tolist()


def sample_texts(task: Task | None, index: int, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, str]:
    """Shortened texts of a sample's prompt and completion; empty if the sample is not available."""
    if task is None or index < 0:
        return "", ""
    sample = task.samples[index]
    if isinstance(sample, Sample):
        return _keep_end(_as_text(sample.prompt)), _keep_start(_as_text(sample.completion))
    return _decoded(sample, tokenizer)


def _decoded(sample: TokenSample, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, str]:
    parts = [
        [token for token, label in zip(sample.input_ids, sample.labels, strict=True) if (label >= 0) == answer]
        for answer in (False, True)
    ]
    if tokenizer is None:
        prompt, answer = (" ".join(map(str, tokens)) for tokens in parts)
    else:
        prompt, answer = (str(tokenizer.decode(tokens)) for tokens in parts)
    return _keep_end(prompt), _keep_start(answer)


def _as_text(text: Text) -> str:
    return (
        text if isinstance(text, str) else "\n".join(f"{message['role']}: {message_text(message)}" for message in text)
    )


def _keep_end(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else f"…{text[1 - MAX_TEXT_LENGTH :]}"


def _keep_start(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
