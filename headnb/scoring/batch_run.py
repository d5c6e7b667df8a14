"""One pass over the batches that a table of scores is waiting for, on this machine or on a cluster."""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from headnb.engine.batching import BLOCK, BatchPlan, collate, pack, split_at_budget
from headnb.errors import HeadnbError
from headnb.scoring.progress import NotFiniteError, Progress, ScoringInterrupted, is_out_of_memory
from headnb.scoring.registry import PreparedScorer
from headnb.scoring.workers import MAX_ATTEMPTS, LostError, ModelLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import xarray as xr
    from torch import Tensor

    from headnb.engine.batching import Batch, Side
    from headnb.engine.tokenization import EncodedTask
    from headnb.scoring.registry import Scorer
    from headnb.scoring.stopping import Stopping
    from headnb.scoring.workers import PendingBatches, Workers
    from headnb.storage.score_store import ScoreTable

_Done = TypeVar("_Done")


@dataclass
class BatchRun:
    """See the module."""

    scorer: Scorer
    encoded: EncodedTask
    table: ScoreTable
    weights: np.ndarray  # (n,): a sample's loss as asked for, over its mean loss
    packed: bool
    side: Side  # of the padding, where batches are not packed
    budget: int  # tokens of a batch; shrinks when memory runs out
    on_progress: Callable[[Progress], None] | None = None
    stopping: Stopping | None = None
    workers: Workers | None = None
    """Of a cluster, which score instead of this process."""
    message: str = ""
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def scores(self) -> xr.Dataset:
        """The scores of the whole task.

        Raises:
            ScoringInterrupted: on Ctrl-C; it holds what was scored.
        """
        try:
            self._score_pending()
            self.table.verify()
        except KeyboardInterrupt:
            raise ScoringInterrupted(self.table.scores()) from None
        reached = {} if self.stopping is None else {"until": self.stopping.rule.words}
        return self.table.scores().assign_attrs(padding=self._padding(), **reached)

    def _score_pending(self) -> None:
        if self._should_stop():
            return
        pending = self.table.pending()
        waiting = sum(int(self._lengths(places).sum()) for places in pending)
        before = int(self.table.done.sum())
        if pending and isinstance(self.scorer, PreparedScorer):
            for _ in self._process(self.table.plan.batches(), partial(self._prepare, self.scorer)):
                self._report(before, waiting, "a first pass over the task")
        self._report(before, waiting)
        scored = (
            self._process(pending, self._score)
            if self.workers is None
            else self._process_on_workers(pending, self.workers)
        )
        with closing(scored):  # an error here calls back at once what workers still do
            for places, (scores, losses) in scored:
                self.table.write(places, *self._weighted(places, scores, losses))
                self.tokens += int(self._lengths(places).sum())
                self._report(before, waiting)
                if self._should_stop():
                    return

    def _padding(self) -> float:
        """The share of tokens in the whole plan's batches that are padding."""
        batches = self.table.plan.batches()
        computed = sum(int(self._padded_tokens(places).sum()) for places in batches)
        return 1 - int(self.encoded.lengths.sum()) / computed

    def _should_stop(self) -> bool:
        return self.stopping is not None and self.stopping.reached(self.table)

    def _process(
        self, batches: list[np.ndarray], work: Callable[[np.ndarray], _Done]
    ) -> Generator[tuple[np.ndarray, _Done]]:
        """Each batch and what `work` makes of it; in smaller batches from where memory runs out."""
        queue = deque(self._within_budget(batches))
        while queue:
            places = queue.popleft()
            done = self._try_batch(work, places)
            if done is None:
                self._shrink_budget(places)
                queue = deque(self._within_budget([places, *queue]))
            else:
                yield places, done

    def _process_on_workers(
        self, batches: list[np.ndarray], workers: Workers
    ) -> Generator[tuple[np.ndarray, tuple[Tensor, Tensor]]]:
        """As `_process` scores, on a cluster: in the order in which batches are done."""
        queue = deque(self._within_budget(batches))
        tries = 0
        try:
            while queue:
                with workers.scoring() as running:
                    try:
                        yield from self._submit_and_collect(queue, running, workers)
                    except ModelLostError:
                        tries += 1
                        if tries == MAX_ATTEMPTS:
                            raise
                        queue.extendleft(running.futures.values())
        except LostError as error:
            raise HeadnbError(f"{error}; {self._missing_message()}") from error

    def _submit_and_collect(
        self, queue: deque[np.ndarray], running: PendingBatches, workers: Workers
    ) -> Generator[tuple[np.ndarray, tuple[Tensor, Tensor]]]:
        """Send out what is in the queue, a few batches at a time, and wait for what comes back."""
        while queue or running:
            while queue and len(running) < workers.max_pending:
                places = queue.popleft()
                running.submit(places, self._batch(places), self.budget)
            places, done = running.next()
            if done is None:
                self._shrink_budget(places)
                smaller = self._within_budget([places, *queue])
                queue.clear()
                queue.extend(smaller)
            else:
                yield places, done

    def _missing_message(self) -> str:
        """What a run that ends here leaves."""
        missing = f"{int((~self.table.done).sum())} of {len(self.table.done)} samples are missing"
        if self.table.on_disk:
            return f"{missing}, the others are kept, and the same call goes on with a new client"
        return f"{missing}; with out= the others would have been kept"

    def _try_batch(self, work: Callable[[np.ndarray], _Done], places: np.ndarray) -> _Done | None:
        """None if memory ran out; on return nothing holds the failed batch's tensors any more."""
        try:
            return work(places)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _prepare(self, scorer: PreparedScorer, places: np.ndarray) -> bool:
        scorer.prepare(self._batch(places))
        return True

    def _score(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.scorer(self._batch(places), budget=self.budget)

    def _weighted(self, places: np.ndarray, scores: Tensor, losses: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Scores (b, L, H) of the loss that is asked for, and mean losses (b,), of one batch."""
        positions = self.table.plan.order[places]
        self._check_finite(positions, scores, losses)
        weights = self.weights[positions]
        return scores.numpy() * weights[:, None, None], losses.numpy()

    def _batch(self, places: np.ndarray) -> Batch:
        samples = [self.encoded.samples[position] for position in self.table.plan.order[places]]
        if self.packed and len({len(sample) for sample in samples}) > 1:
            return pack(samples)
        return collate(samples, side=self.side)  # samples of one length need no padding

    def _check_finite(self, positions: np.ndarray, scores: Tensor, losses: Tensor) -> None:
        expected = torch.tensor([heads > 0 for heads in self.scorer.layout.heads])
        broken = ~scores[:, expected].sum(-1).isfinite()  # (b, layers with heads)
        broken_samples = (~losses.isfinite() | broken.any(1)).nonzero()[:, 0]
        if not len(broken_samples):
            return
        row = int(broken_samples[0])
        key, sample = self.encoded.ids[positions[row]], self.encoded.samples[positions[row]]
        if not losses[row].isfinite():
            raise NotFiniteError(f"the loss of sample {key!r} is {losses[row].item()}", sample)
        layer = int(expected.nonzero()[:, 0][broken[row]][-1])
        raise NotFiniteError(f"sample {key!r} has scores that are not finite, from layer {layer} down", sample)

    def _shrink_budget(self, failed: np.ndarray) -> None:
        """Half the budget, after memory ran out in a batch."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = int(self._lengths(failed).max())
        if len(failed) == 1 and longest > self.budget:
            raise HeadnbError(f"memory is too small for one sample of {longest} tokens; max_length cuts samples")
        tokens = int(self._padded_tokens(failed).sum())
        if len(failed) > 1 and tokens > self.budget:  # it was sent to a worker before the budget shrank
            return
        self.budget = max(1, min(self.budget, tokens) // 2)
        self.message = f"out of memory with {tokens} tokens a batch; going on with {self.budget}"

    def _within_budget(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """The same work in batches that the budget allows; the table keeps the new plan."""
        smaller = [part for places in batches for part in self._split(places)]
        if len(smaller) > len(batches):
            batch = self.table.plan.batch.copy()
            for number, places in enumerate(smaller, start=int(batch.max()) + 1):
                batch[places] = number
            self.table.replan(BatchPlan(self.table.plan.order, batch))
        return smaller

    def _split(self, places: np.ndarray) -> list[np.ndarray]:
        return [places[group] for group in split_at_budget(self._padded_tokens(places), self.budget)]

    def _padded_tokens(self, places: np.ndarray) -> np.ndarray:
        """Tokens that each sample costs in a batch of these, padding included."""
        lengths = self._lengths(places)
        return lengths if self.packed else np.full_like(lengths, lengths.max())

    def _lengths(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self.encoded.lengths[self.table.plan.order[places]])

    def _report(self, before: int, waiting: int, doing: str = "") -> None:
        if self.on_progress is None:
            return
        seconds = time.perf_counter() - self.started
        done = int(self.table.done.sum())
        left = seconds * (waiting - self.tokens) / self.tokens if self.tokens else None
        self.on_progress(
            Progress(
                done=done,
                total=len(self.table.done),
                seconds=seconds,
                samples_per_second=(done - before) / seconds if seconds else 0.0,
                seconds_left=left,
                tokens=self.tokens,
                message=doing or self.message,
                scores=lambda: self.table.scores(whole_blocks_of=BLOCK),
            )
        )
