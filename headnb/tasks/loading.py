"""A task is what a model is scored on: samples of prompt and completion, with ids, and where they came from.

`load_task` turns what a user has into a `Task`: a name from the registry (`known_tasks()`), a JSONL file, a data
set of the `datasets` library or a hub id, pairs, chat messages, or samples that are encoded already. Nothing of
torch, datasets or reasoning-gym is imported before a source needs it, and no text of a source is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.tasks import procedural, registry, sources
from headnb.tasks.samples import (
    Sample,
    TokenSample,
    check_fields,
    check_text,
    read_ids,
    read_row,
    read_samples,
    sample_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headnb.tasks.registry import TaskCard
    from headnb.tasks.samples import Id
    from headnb.tasks.sources import Rows

__all__ = ["Sample", "Task", "TokenSample", "known_tasks", "load_task"]


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """Samples to score, in order.

    Attributes:
        name: what results are labelled with.
        samples: all `Sample` (text or chat messages) or all `TokenSample` (encoded already).
            What `load_task` takes as a row is made into one of these.
        ids: one per sample, unique, all text or all whole numbers (64 bits): the row number in the source, or the
            source's own id. Scores of the same task before and after training are paired by them.
        source: where the samples came from, for people to read.

    Raises:
        HeadnbError: no samples, one that is none or has no answer, ids that are not unique or not one per sample,
            or the two kinds mixed.
    """

    name: str
    samples: tuple[Sample | TokenSample, ...]
    ids: tuple[Id, ...]
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise HeadnbError(f"the name of a task is text, not {self.name!r:.60}")
        check_text(self.name, f"the name of a task, {self.name!r:.60},")
        where = f"task {self.name!r}"
        for name, values in (("samples", self.samples), ("ids", self.ids)):
            if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
                raise HeadnbError(f"{where}: {name} must be a list or a tuple, not a {type(values).__name__}")
        ids = read_ids(self.ids, where)
        samples = tuple(read_row(row, f"{where}: sample {place}") for place, row in enumerate(self.samples))
        if not samples:
            raise HeadnbError(f"{where} has no samples ({self.source})")
        if len(ids) != len(samples):
            raise HeadnbError(f"{where} has {len(samples)} samples but {len(ids)} ids")
        if len({type(sample) for sample in samples}) > 1:
            raise HeadnbError(f"{where} mixes text samples and encoded samples; use one kind")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "ids", ids)

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {len(self)} samples from {self.source})"

    def only(self, key: Id) -> Task:
        """A task of one of these samples.

        Raises:
            HeadnbError: no sample has this id.
        """
        if key not in self.ids:
            raise unknown_name(f"sample of {self.name}", str(key), map(str, self.ids[:20]))
        place = self.ids.index(key)
        return Task(self.name, (self.samples[place],), (key,), self.source)

    def with_shuffled_answers(self, seed: int = 0) -> Task:
        """Each prompt with the completion of another sample: what can be learnt of a task's form without its content.

        The samples change completions along one random cycle, so none keeps its own; where answers are few, as yes
        and no, many prompts still get the text that theirs was.

        Raises:
            HeadnbError: one sample only, or encoded samples, whose answers are not told apart as text.
        """
        texts = [sample for sample in self.samples if isinstance(sample, Sample)]
        if len(texts) < len(self):
            raise HeadnbError(f"{self.name} holds encoded samples; answers are shuffled as text")
        if len(texts) < 2:
            raise HeadnbError(f"{self.name} has one sample; its answer cannot go to another")
        cycle = random.Random(seed).sample(range(len(texts)), len(texts))  # noqa: S311  not for secrets
        samples = list(texts)
        for place, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            samples[place] = dataclasses.replace(texts[place], completion=texts[other].completion)
        return dataclasses.replace(self, name=f"{self.name}, answers shuffled", samples=tuple(samples))

    def fingerprint(self) -> str:
        """32 hex digits that change with any sample, any id, or their order; name and source do not matter."""
        digest = hashlib.blake2b(digest_size=16)
        for key, sample in zip(self.ids, self.samples, strict=True):
            line = json.dumps([key, sample_line(sample)], sort_keys=True)
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def known_tasks() -> dict[str, TaskCard]:
    """Name -> card of every task in the registry, the procedural ones of reasoning-gym last."""
    return {**registry.CARDS, **procedural.procedural_cards()}


@check_arguments
def load_task(
    source: object,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    name: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> Task:
    r"""A task from whatever holds its samples.

    Args:
        source: one of: a name in `known_tasks()`; a path to a JSONL file (one object a line: `prompt` and
            `completion`, or `messages`, or `input_ids` and `labels`); the hub id or the folder of a data set;
            a `datasets.Dataset` (read through its own transform, if it has one); a list of pairs, of dicts, of named
            tuples or dataclasses with those names, or of samples; a `Task`.
            Encoded rows lose masked tokens, and packed ones are split: row 7 gives the samples "7/0", "7/1".
            Rows that have an `id` keep it, in all of these; those of a task in `known_tasks()` are numbered.
            If the folder that the environment's HEADNB_DATA names holds `{source}.{split}.jsonl`, that is read.
        split: which split, where the source has several. For a procedural task any name: each gives other samples.
        n: how many samples, drawn by `seed` without replacement (a larger n with the same seed keeps those of a
            smaller one). None takes all, in the source's order; of a procedural task 64.
            Procedural tasks need the extra `tasks`, except for up to 64 samples of gsm_symbolic and
            sentence_reordering with seed 0.
        seed: of the draw, and of what a procedural task makes.
        name: what to call the task; by default what `source` is called.
        fields: which columns hold what: `{"prompt": "question", "completion": "answer"}`, or templates:
            `{"prompt": "Question: {question}\nAnswer: ", "completion": "{answer}"}`. A template names columns, and
            nothing of Python's format language; a column holds text, or numbers, which are taken as Python writes
            them. `"id"` names the column of the ids.

    Raises:
        HeadnbError: unknown name (the nearest ones are named), fewer than n samples, a row that is no sample, or a
            procedural task without reasoning-gym.
    """
    check_fields(fields)
    if not isinstance(split, str):
        raise HeadnbError(f"split must be a name such as 'test', not {split!r:.60}")
    if n is not None and n < 1:
        raise HeadnbError(f"n must be a whole number of samples, 1 or more, not {n!r}")
    if isinstance(source, Task):
        rows = sources.Rows(source.name, source.source, source.samples, source.ids)
    else:
        rows = sources.find_rows(source, split, n, seed, fields)
    taken = list(itertools.islice(_samples(rows, n, seed, fields), n))
    if n is not None and len(taken) < n:
        raise HeadnbError(f"{rows.name} has {len(taken)} samples ({rows.source}); n={n} asks for more")
    return Task(
        name=name or rows.name,
        samples=tuple(sample for _, _, sample in taken),
        ids=_ids([(key, part) for key, part, _ in taken]),
        source=rows.source,
    )


def _samples(
    rows: Rows, n: int | None, seed: int, fields: Mapping[str, str] | None
) -> Iterator[tuple[Id, int | None, Sample | TokenSample]]:
    """Of every row in order: its id, the place in it if it is packed, and the sample.

    A template's rows without an answer are passed over.
    """
    for index in _order(len(rows.rows), n, seed):
        row, where = rows.row(index), rows.where(index)
        if rows.template is not None:
            row = registry.fill_template(rows.template, row, where)
            if row is None:
                continue
        for part, sample in read_samples(row, where, fields):
            yield rows.ids[index], part, sample


def _ids(taken: list[tuple[Id, int | None]]) -> tuple[Id, ...]:
    """The ids of samples: "7/0" of the first one in the packed row 7; all are text where a row is packed."""
    if all(part is None for _, part in taken):
        return tuple(key for key, _ in taken)
    return tuple(str(key) if part is None else f"{key}/{part}" for key, part in taken)


def _order(total: int, n: int | None, seed: int) -> list[int]:
    """A seeded permutation, whose first n are the draw: so a draw of 32 is the beginning of a draw of 64."""
    order = list(range(total))
    if n is not None:
        random.Random(seed).shuffle(order)  # noqa: S311  not for secrets
    return order
