"""Samples of the fair experiment (docs/experiment.md): whole samples only, and tasks that combine two tasks.

"a+b" is the concatenation of two tasks: the prompts of one sample of each, then both answers. "a_or_b" is their union:
samples of both in random order. Both use test samples that the two tasks themselves are not scored on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.experiments.samples import texts_of, without_texts
from headnb.tasks.files import UNION, task_parts
from headnb.tasks.loading import Task, is_endless, load_task, subset
from headnb.tasks.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDLESS = 2000  # samples of a split of a procedural task
BETWEEN = "\n\n"  # between the two prompts and the two answers of a concatenation


@dataclass(frozen=True)
class FairSamples:
    """Scored samples and training samples of every task; every call returns the same ones.

    Attributes:
        tokenizer: the model's tokenizer.
        max_length: longer samples are left out, never truncated. Each part of a concatenation has this limit.
        n: scored samples per task.
        multiple: the number of scored samples is a multiple of this.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    n: int
    multiple: int
    _known: dict[tuple[str, str], Task] = field(default_factory=dict, repr=False, compare=False)

    def scored(self, task: str) -> Task:
        """Test samples that are scored before and after training: n, or as many as a combined task has.

        Raises:
            HeadnbError: there are fewer than n whole samples (combined tasks: fewer than `multiple`).
        """
        parts = task_parts(task)
        if len(parts) == 1:
            return load_task(self._whole(task, "test"), n=self.n, seed=0)
        of_parts = [without_texts(self._whole(part, "test"), texts_of(self.scored(part))) for part in parts]
        combined = _combined(task, of_parts, seed=0)
        count = min(self.n, len(combined)) // self.multiple * self.multiple
        if not count:
            raise HeadnbError(f"{task} has only {len(combined)} whole test samples that its parts are not scored on")
        return load_task(combined, n=count, seed=0)

    def held_out(self, task: str) -> Task:
        """n test samples that are not scored."""
        return load_task(without_texts(self._whole(task, "test"), texts_of(self.scored(task))), n=self.n, seed=0)

    def training(self, task: str) -> Task:
        """All whole training samples, without those that are scored (some data sets have one split only)."""
        parts = task_parts(task)
        excluded = {text for name in {task, *parts} for text in texts_of(self.scored(name))}
        pools = [without_texts(self._whole(part, "train"), excluded) for part in parts]
        if len(parts) == 1:
            return pools[0]
        return without_texts(_combined(task, pools, seed=1), excluded)

    def _whole(self, task: str, split: str) -> Task:
        """The samples of a split that are not too long; tokenized once."""
        if (task, split) not in self._known:
            everything = load_task(task, split=split, n=ENDLESS if is_endless(task) else None)
            encoded = encode_task(everything, self.tokenizer)
            fits = {key for key, size in zip(encoded.ids, encoded.lengths, strict=True) if size <= self.max_length}
            indices = [index for index, key in enumerate(everything.ids) if key in fits]
            if not indices:
                raise HeadnbError(f"{task} ({everything.source}) has no samples of at most {self.max_length} tokens")
            self._known[task, split] = subset(everything, indices)
        return self._known[task, split]


def _combined(task: str, parts: list[Task], seed: int) -> Task:
    """The concatenation or the union of the parts, in random order."""
    rng = random.Random(seed)  # noqa: S311  not for secrets
    orders = [rng.sample(range(len(part)), len(part)) for part in parts]
    source = " and ".join(part.source for part in parts)
    if UNION in task:
        indices = [(part, index) for part, order in zip(parts, orders, strict=True) for index in order]
        rng.shuffle(indices)
        ids = tuple(f"{part.name}/{part.ids[index]}" for part, index in indices)
        return Task(task, tuple(part.samples[index] for part, index in indices), ids, source)
    samples, keys = [], []
    for indices_of_pair in zip(*orders, strict=False):
        pair = [part.samples[index] for part, index in zip(parts, indices_of_pair, strict=True)]
        samples.append(_joined(pair, task))
        keys.append("+".join(str(part.ids[index]) for part, index in zip(parts, indices_of_pair, strict=True)))
    return Task(task, tuple(samples), tuple(keys), source)


def _joined(pair: list[object], task: str) -> Sample:
    texts = [sample for sample in pair if isinstance(sample, Sample)]
    if len(texts) < len(pair) or not all(isinstance(sample.prompt, str) for sample in texts):
        raise HeadnbError(f"{task}: only tasks of plain text can be concatenated")
    return Sample(
        BETWEEN.join(str(sample.prompt) for sample in texts), BETWEEN.join(str(sample.completion) for sample in texts)
    )
