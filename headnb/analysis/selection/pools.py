"""Pools and targets of instruction selection: samples or their scores, from any source.

A pool may be larger than memory. Its scores are written to stores of `SAMPLES_PER_STORE` samples and read
`ROWS_PER_READ` at a time. The samples themselves (text) are in memory, as everywhere in headnb.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.storage.reading import read_parts
from headnb.tasks.loading import Task, load_task, subset
from headnb.tasks.samples import sample_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headnb.scoring.progress import Progress
    from headnb.tasks.samples import Id, Sample, TokenSample

ROWS_PER_READ = 4096  # samples read at once
SAMPLES_PER_STORE = 8192  # samples of one store, if the pool is scored by select_instructions

Scores: TypeAlias = xr.Dataset | Path
Scorer: TypeAlias = Callable[..., Scores]
"""Scores a task, given `out` and `on_progress`; returns the store `out`, or features in memory."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One source of a pool: a task, or scores."""

    name: str
    """Name of the source in a pool of named sources; else empty."""
    content: Task | Scores

    def ids(self, own: Sequence[Any]) -> NDArray[np.object_]:
        """Ids in the pool for ids in the source: `name/id`, or the id itself in an unnamed source."""
        return np.array([f"{self.name}/{key}" if self.name else key for key in own], object)


def read_pool(pool: object) -> list[Source]:
    """Read the sources of a pool, given as one source or as name -> source.

    Raises:
        HeadnbError: an empty pool, or a source that is neither scores nor accepted by `load_task`.
    """
    if isinstance(pool, xr.Dataset) or not isinstance(pool, Mapping):  # a Dataset is a Mapping as well
        return [Source("", part) for part in _read_source(pool)]
    if not pool:
        raise HeadnbError("the pool is empty")
    return [Source(str(name), part) for name, value in pool.items() for part in _read_source(value)]


def read_target(target: object) -> Task | Scores:
    """Read a target: scores, or a task.

    Raises:
        HeadnbError: the errors of `read_pool`, or a folder with several stores.
    """
    parts = _read_source(target)
    if len(parts) > 1:
        raise HeadnbError(f"{target} has {len(parts)} stores; a target must be one task or its scores")
    return parts[0]


def _read_source(value: object) -> list[Task | Scores]:
    if isinstance(value, xr.Dataset):
        return [value]
    if isinstance(value, (str, Path)):
        path = user_path(value)
        if path.suffix in {".zarr", ".nc"} or (path / "zarr.json").is_file():
            return [path]
        if stores := sorted(path.glob("part-*.zarr")):
            return list(stores)
    return [load_task(value, split="train")]


def all_tasks(sources: Sequence[Source]) -> bool:
    """Whether every source is a task (has samples)."""
    return all(isinstance(source.content, Task) for source in sources)


def score_sources(sources: Sequence[Source], score: Scorer | None, out: Path, on_progress: Any) -> list[Source]:
    """Score the sources that are tasks; return all sources with scores.

    Args:
        sources: sources of a pool.
        score: scores a task; None if there is no model, which makes tasks an error.
        out: folder for `part-00000.zarr` and so on, in a subfolder with the source's name if it has one. Stores that
            an earlier call wrote there are reused.
        on_progress: callback of `score_heads`; its numbers are those of the whole pool.
    """
    total = sum(len(source.content) for source in sources if isinstance(source.content, Task))
    before = 0
    scored: list[Source] = []
    for source in sources:
        if not isinstance(source.content, Task):
            scored.append(source)
            continue
        if score is None:
            raise HeadnbError(f"{source.content.name} is a task without scores; give model= and tokenizer=, or scores")
        folder = out / source.name if source.name else out
        for number, part in enumerate(_split_task(source.content)):
            path = folder / f"part-{number:05}.zarr"
            scores = score(part, out=path, on_progress=_overall_progress(on_progress, before, total))
            scored.append(Source(source.name, scores))
            before += len(part)
    return scored


def _split_task(task: Task) -> Iterator[Task]:
    for start in range(0, len(task), SAMPLES_PER_STORE):
        yield subset(task, range(start, min(start + SAMPLES_PER_STORE, len(task))))


def _overall_progress(on_progress: Any, before: int, total: int) -> Callable[[Progress], None] | None:
    if on_progress is None:
        return None

    def report(progress: Progress) -> None:
        done = before + progress.done
        speed = progress.samples_per_second
        left = (total - done) / speed if speed else None
        on_progress(dataclasses.replace(progress, done=done, total=total, seconds_left=left))

    return report


def score_rows(sources: Sequence[Source]) -> Iterator[tuple[Source, NDArray[np.int64], xr.Dataset]]:
    """Yield source, positions in the pool (b) and scores of at most `ROWS_PER_READ` samples at a time."""
    start = 0
    for source in sources:
        following = start
        for part in read_parts(source.content, ROWS_PER_READ):  # type: ignore[arg-type]  # scored
            positions = start + part["position"].values
            following = max(following, int(positions.max()) + 1)
            yield source, positions, part
        start = following


def incomplete_sources(sources: Sequence[Source]) -> list[str]:
    """One line about each source whose scoring is not complete."""
    first = [(source, next(read_parts(source.content, 1), None)) for source in sources]  # type: ignore[arg-type]
    return [
        f"{source.name or source.content} is not completely scored; only the scored samples were compared"
        for source, part in first
        if part is None or not part.attrs.get("complete", 1)
    ]


def text_rows(
    sources: Sequence[Source],
) -> Iterator[tuple[Source, NDArray[np.int64], tuple[Id, ...], tuple[Sample | TokenSample, ...]]]:
    """Yield source, positions in the pool (b), ids in the source and samples, at most `ROWS_PER_READ` at a time."""
    start = 0
    for source in sources:
        task = source.content
        assert isinstance(task, Task)  # noqa: S101  callers check this
        for first in range(0, len(task), ROWS_PER_READ):
            part = slice(first, first + ROWS_PER_READ)
            ids = task.ids[part]
            yield source, start + first + np.arange(len(ids)), ids, task.samples[part]
        start += len(task)


def sample_keys(samples: Sequence[Sample | TokenSample]) -> NDArray[np.int64]:
    """(n): hash of each sample's content."""
    lines = [json.dumps(sample_line(sample), sort_keys=True).encode() for sample in samples]
    digests = [hashlib.blake2b(line, digest_size=8).digest() for line in lines]
    return np.array([int.from_bytes(digest, "little", signed=True) for digest in digests], np.int64)


def chosen_task(sources: Sequence[Source], ids: Sequence[Id], name: str) -> Task:
    """Build a task of the samples with these ids, in this order.

    Raises:
        HeadnbError: an id is not in the sources.
    """
    wanted = {key: row for row, key in enumerate(ids)}
    found: dict[int, Sample | TokenSample] = {}
    for source, _, own, samples in text_rows(sources):
        for key, sample in zip(source.ids(own), samples, strict=True):
            if key in wanted:
                found[wanted[key]] = sample
    if missing := [key for key, row in wanted.items() if row not in found]:
        raise HeadnbError(f"{len(missing)} of the chosen samples are not in this pool (the first: {missing[0]!r})")
    described = ", ".join(source.name or source.content.name for source in sources if isinstance(source.content, Task))
    return Task(name, tuple(found[row] for row in range(len(ids))), tuple(ids), described)
