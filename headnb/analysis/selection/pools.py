"""What instructions are chosen from and for: samples, or their scores, from whatever a user holds.

A pool may be larger than memory: its scores are made and kept in stores of `SAMPLES_PER_STORE` samples,
and read `ROWS_PER_READ` at
a time. Samples themselves (text) are in memory, as everywhere in headnb.
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
from headnb.storage.score_store import read_parts
from headnb.tasks.loading import Task, load_task
from headnb.tasks.samples import sample_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headnb.scoring.progress import Progress
    from headnb.tasks.samples import Id, Sample, TokenSample

ROWS_PER_READ = 4096  # samples read at once
SAMPLES_PER_STORE = 8192  # samples of one store, where the pool is scored here

Scores: TypeAlias = xr.Dataset | Path
Scorer: TypeAlias = Callable[..., xr.Dataset]
"""`score_heads` with all but the task, `out` and `on_progress`."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One of the sources of a pool: a task, or scores."""

    name: str
    """Of the source, where a pool has several by name; else empty."""
    content: Task | Scores

    def ids(self, own: Sequence[Any]) -> NDArray[np.object_]:
        """The ids in the pool of samples with these ids in the source."""
        return np.array([f"{self.name}/{key}" if self.name else key for key in own], object)


def read_pool(pool: object) -> list[Source]:
    """The sources of a pool: of one thing, or of name -> thing.

    Raises:
        HeadnbError: something that is neither scores nor anything that `load_task` accepts.
    """
    if isinstance(pool, xr.Dataset) or not isinstance(pool, Mapping):  # a data set is a mapping, too
        return [Source("", part) for part in _read_source(pool)]
    if not pool:
        raise HeadnbError("the pool is empty")
    return [Source(str(name), part) for name, value in pool.items() for part in _read_source(value)]


def read_target(target: object) -> Task | Scores:
    """A target: scores, or a task.

    Raises:
        HeadnbError: as `read_pool` does; or a folder of several stores.
    """
    parts = _read_source(target)
    if len(parts) > 1:
        raise HeadnbError(f"{target} holds {len(parts)} stores; a target is one task, or its scores")
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
    """Whether every source brings its samples."""
    return all(isinstance(source.content, Task) for source in sources)


def score_sources(sources: Sequence[Source], score: Scorer | None, out: Path, on_progress: Any) -> list[Source]:
    """The sources with their scores in place of tasks.

    Args:
        sources: of a pool.
        score: scores a task; None: there is no model, and tasks are an error.
        out: a folder for `part-00000.zarr` and so on, in a folder of the source's name if it has one. What an earlier
            call wrote there is used again.
        on_progress: called as `score_heads` does, with the numbers of the whole pool.
    """
    waiting = sum(len(source.content) for source in sources if isinstance(source.content, Task))
    before = 0
    found: list[Source] = []
    for source in sources:
        if not isinstance(source.content, Task):
            found.append(source)
            continue
        if score is None:
            raise HeadnbError(f"{source.content.name} is a task without scores: give model= and tokenizer=, or scores")
        folder = out / source.name if source.name else out
        for number, part in enumerate(_split_task(source.content)):
            path = folder / f"part-{number:05}.zarr"
            score(part, out=path, on_progress=_overall_progress(on_progress, before, waiting))
            found.append(Source(source.name, path))
            before += len(part)
    return found


def _split_task(task: Task) -> Iterator[Task]:
    for start in range(0, len(task), SAMPLES_PER_STORE):
        part = slice(start, start + SAMPLES_PER_STORE)
        yield Task(task.name, task.samples[part], task.ids[part], task.source)


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
    """Source, positions in the pool (b) and scores of some samples at a time, at most `ROWS_PER_READ`."""
    start = 0
    for source in sources:
        following = start
        for part in read_parts(source.content, ROWS_PER_READ):  # type: ignore[arg-type]  # scored
            positions = start + part["position"].values
            following = max(following, int(positions.max()) + 1)
            yield source, positions, part
        start = following


def incomplete_sources(sources: Sequence[Source]) -> list[str]:
    """One line about each source whose scoring was stopped, or goes on."""
    first = [(source, next(read_parts(source.content, 1), None)) for source in sources]  # type: ignore[arg-type]
    return [
        f"{source.name or source.content} is not scored to its end; only what is there was compared"
        for source, part in first
        if part is None or not part.attrs.get("complete", 1)
    ]


def text_rows(
    sources: Sequence[Source],
) -> Iterator[tuple[Source, NDArray[np.int64], tuple[Id, ...], tuple[Sample | TokenSample, ...]]]:
    """Source, positions in the pool (b), ids in the source and samples, at most `ROWS_PER_READ` at a time."""
    start = 0
    for source in sources:
        task = source.content
        assert isinstance(task, Task)  # noqa: S101  who calls has looked
        for first in range(0, len(task), ROWS_PER_READ):
            part = slice(first, first + ROWS_PER_READ)
            ids = task.ids[part]
            yield source, start + first + np.arange(len(ids)), ids, task.samples[part]
        start += len(task)


def sample_keys(samples: Sequence[Sample | TokenSample]) -> NDArray[np.int64]:
    """A hash of each sample's content (n)."""
    lines = [json.dumps(sample_line(sample), sort_keys=True).encode() for sample in samples]
    digests = [hashlib.blake2b(line, digest_size=8).digest() for line in lines]
    return np.array([int.from_bytes(digest, "little", signed=True) for digest in digests], np.int64)


def chosen_task(sources: Sequence[Source], ids: Sequence[Id], name: str) -> Task:
    """A task of the samples with these ids, in this order.

    Raises:
        HeadnbError: the sources hold scores, or no sample with one of the ids.
    """
    wanted = {key: place for place, key in enumerate(ids)}
    found: dict[int, Sample | TokenSample] = {}
    for source, _, own, samples in text_rows(sources):
        for key, sample in zip(source.ids(own), samples, strict=True):
            if key in wanted:
                found[wanted[key]] = sample
    if missing := [key for key, place in wanted.items() if place not in found]:
        raise HeadnbError(f"{len(missing)} of the chosen samples are not in this pool (the first: {missing[0]!r})")
    described = ", ".join(source.name or source.content.name for source in sources if isinstance(source.content, Task))
    return Task(name, tuple(found[place] for place in range(len(ids))), tuple(ids), described)
