"""Tasks: samples of prompt and completion with ids and a source, on which a model is scored.

`load_task` makes a `Task` from a name in the registry (`known_tasks()`), a file, a data frame, a data set of the
`datasets` library, a hub id, a task of lm-evaluation-harness, pairs, chat messages, or encoded samples. It imports
torch, datasets, pandas, pyarrow, reasoning-gym and lm_eval only if a source needs them, and never executes text of a
source.
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
from headnb.tasks.row_values import check_text, type_name
from headnb.tasks.rows import Rows
from headnb.tasks.samples import Sample, TokenSample, check_fields, read_ids, read_row, read_samples, sample_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headnb.tasks.registry import TaskCard
    from headnb.tasks.samples import Id

__all__ = ["Sample", "Task", "TokenSample", "known_tasks", "load_task"]


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """Samples to score, in order.

    Attributes:
        name: label of the task in results.
        samples: all `Sample` (text or chat messages) or all `TokenSample` (encoded). Rows in any form that `load_task`
            accepts are converted.
        ids: one per sample, unique, all text or all whole numbers (64 bits): the row number in the source, or the
            source's own id. Scores of the same task before and after fine-tuning are paired by id.
        source: origin of the samples, a text for display.

    Raises:
        HeadnbError: no samples, an invalid sample or one without an answer, ids that are not unique or not one per
            sample, or text samples mixed with encoded samples.
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
                raise HeadnbError(f"{where}: {name} must be a list or a tuple, not {type_name(values)}")
        ids = read_ids(self.ids, where)
        samples = tuple(read_row(row, f"{where}: sample {index}") for index, row in enumerate(self.samples))
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
        """A task with only the sample that has this id.

        Raises:
            HeadnbError: no sample has this id.
        """
        if key not in self.ids:
            if str(key) in map(str, self.ids):
                kind = "numbers" if isinstance(key, str) else "text"
                raise HeadnbError(f"the sample ids of {self.name} are {kind}, but {key!r:.60} is {type_name(key)}")
            raise unknown_name(f"sample of {self.name}", str(key), map(str, self.ids))
        return subset(self, [self.ids.index(key)])

    def with_shuffled_answers(self, seed: int = 0) -> Task:
        """A control task with the form of this one but not its content: each prompt has another sample's completion.

        The completions move along one random cycle, so no sample keeps its own. If the task has few distinct answers,
        such as yes and no, many prompts still get a completion with the same text.

        Args:
            seed: seed of the cycle.

        Raises:
            HeadnbError: only one sample, or encoded samples, whose answers cannot be exchanged as text.
        """
        texts = [sample for sample in self.samples if isinstance(sample, Sample)]
        if len(texts) < len(self):
            raise HeadnbError(f"cannot shuffle the answers of {self.name}: encoded samples are not supported")
        if len(texts) < 2:
            raise HeadnbError(f"cannot shuffle the answers of {self.name}: it has only one sample")
        cycle = random.Random(seed).sample(range(len(texts)), len(texts))  # noqa: S311  not for secrets
        samples = list(texts)
        for index, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            samples[index] = dataclasses.replace(texts[index], completion=texts[other].completion)
        return dataclasses.replace(self, name=f"{self.name}, answers shuffled", samples=tuple(samples))

    def fingerprint(self) -> str:
        """Hash of the samples, their ids and their order (32 hex digits); independent of name and source."""
        digest = hashlib.blake2b(digest_size=16)
        for key, sample in zip(self.ids, self.samples, strict=True):
            line = json.dumps([key, sample_line(sample)], sort_keys=True)
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def subset(task: Task, indices: Iterable[int]) -> Task:
    """The samples of a task at these indices, in this order."""
    samples, ids = zip(*((task.samples[index], task.ids[index]) for index in indices), strict=True)
    return dataclasses.replace(task, samples=samples, ids=ids)


def known_tasks() -> dict[str, TaskCard]:
    """Name -> card of every task in the registry; the procedural tasks come last."""
    return {**registry.CARDS, **procedural.procedural_cards()}


def is_endless(source: object) -> bool:
    """Whether a source is the name of a procedural task, whose splits have no end."""
    return isinstance(source, str) and source in procedural.procedural_cards()


@check_arguments
def load_task(
    source: object,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    name: str | None = None,
    fields: Mapping[str, str] | None = None,
    config: str | None = None,
) -> Task:
    r"""Load a task from a name, a file, a table, a data set or samples in memory.

    Args:
        source: one of:

            - a name in `known_tasks()`; `./name` is a file or a folder of that name. If the folder in the environment
              variable HEADNB_DATA has `{source}.{split}.jsonl`, this file is read;
            - a path to a file: JSON Lines (`.jsonl`), a JSON array (`.json`), CSV, TSV or Parquet, also with `.gz`;
            - a frame of pandas or polars, an Arrow table, or another object with Arrow's stream interface. A named
              index of a pandas frame is a column; other indices are ignored;
            - the hub id or the folder of a data set; a `datasets.Dataset` (read through its own transform, if it has
              one) or `IterableDataset`, of which the first n rows are taken;
            - `lm_eval:` and the name of a task of lm-evaluation-harness, or its task object: the prompts with the
              task's own few-shot examples, and the gold targets (extra `harness`);
            - a list of pairs, of dicts, of named tuples or dataclasses, or of samples; a `Task`.

            A row has `prompt` and `completion` (text or chat messages), or `messages`, or `input_ids` and `labels`. CSV
            cells are read as text, unchanged. Masked tokens of encoded rows are dropped, and packed rows are split: row
            7 gives samples "7/0", "7/1". Rows with an `id` keep it (1.0 counts as 1); rows without one, and rows of
            tasks in `known_tasks()`, get their row number as id.
        split: the split of a source with several splits; for a data set on the hub or in a folder also a part of one,
            such as "test[:100]". A procedural task has train, validation and test. Of a source without splits, both
            "train" and "test" mean all samples, and other splits are refused.
        n: number of samples, a random subset without replacement (a larger n with the same seed contains the smaller
            subset). None takes all samples in the source's order; 64 samples of a procedural task or an
            `IterableDataset`.
            Procedural tasks need the extra `tasks`, except for up to 64 samples of gsm_symbolic and
            sentence_reordering with seed 0.
        seed: seed of the sampling, of the generator of a procedural task, and of few-shot examples.
        name: name of the task; by default that of `source`.
        fields: columns of prompt and completion: `{"prompt": "question", "completion": "answer"}`, or templates:
            `{"prompt": "Question: {question}\nAnswer: ", "completion": "{answer}"}`. A template contains column names
            only, without Python's format specifications. Columns hold text or numbers; numbers are written by `str`.
            `"id"` names the column of the ids.
        config: configuration of a data set (on the hub or in a folder) that has several, such as "main".

    Raises:
        HeadnbError: an unknown name (the error suggests similar names), fewer than n samples, an invalid row, a file
            whose content does not match its name, or a missing package that the source needs.

    Example:
        >>> frame = pandas.DataFrame({"question": ["2 + 3?"], "answer": [5]})
        >>> headnb.load_task(frame, fields={"prompt": "{question} ", "completion": "answer"})
        Task('table', 1 samples from pandas DataFrame in memory)
    """
    task = load_at_most(source, n, split, seed, name, fields, config)
    if n is not None and len(task) < n:
        raise HeadnbError(f"{task.name} has {len(task)} samples ({task.source}), fewer than n={n}")
    return task


@check_arguments
def load_at_most(
    source: object,
    n: int | None,
    split: str = "test",
    seed: int = 0,
    name: str | None = None,
    fields: Mapping[str, str] | None = None,
    config: str | None = None,
) -> Task:
    """Load a task as `load_task` does, but with all samples if there are fewer than n.

    Raises:
        HeadnbError: as for `load_task`.
    """
    check_fields(fields)
    for argument, value in (("split", split), ("config", config)):
        if not (isinstance(value, str) or (value is None and argument == "config")):
            raise HeadnbError(f"{argument} must be a name such as 'test' or 'main', not {value!r:.60}")
    if n is not None and n < 1:
        raise HeadnbError(f"n must be a whole number of samples, 1 or more, not {n!r}")
    wanted = sources.Wanted(split, n, seed, fields, config)
    if isinstance(source, Task):
        sources.refuse_config(wanted, type_name(source))
        sources.refuse_split(wanted, type_name(source))
        rows = Rows(source.name, source.source, source.samples, source.ids)
    else:
        rows = sources.find_rows(source, wanted)
    selected = list(itertools.islice(_samples(rows, n, seed, fields), n))
    return Task(
        name=name or rows.name,
        samples=tuple(sample for _, _, sample in selected),
        ids=_ids([(key, part) for key, part, _ in selected]),
        source=rows.source,
    )


def _samples(
    rows: Rows, n: int | None, seed: int, fields: Mapping[str, str] | None
) -> Iterator[tuple[Id, int | None, Sample | TokenSample]]:
    """Each sample in order, with the id of its row and, in a packed row, its number in the row.

    Rows for which a registered task's template finds no answer are skipped.
    """
    for index in _order(len(rows.rows), None if rows.streamed else n, seed):
        row, where = rows.row(index), rows.where(index)
        if rows.template is not None:
            row = registry.fill_template(rows.template, row, where)
            if row is None:
                continue
        for part, sample in read_samples(row, where, fields):
            yield rows.ids[index], part, sample


def _ids(parts: list[tuple[Id, int | None]]) -> tuple[Id, ...]:
    """Sample ids: "7/0" for the first sample of the packed row 7; if any row is packed, all ids are text."""
    if all(part is None for _, part in parts):
        return tuple(key for key, _ in parts)
    return tuple(str(key) if part is None else f"{key}/{part}" for key, part in parts)


def _order(total: int, n: int | None, seed: int) -> list[int]:
    """A seeded permutation of the rows, so that the first 32 samples are the same for n=32 and n=64."""
    order = list(range(total))
    if n is not None:
        random.Random(seed).shuffle(order)  # noqa: S311  not for secrets
    return order
