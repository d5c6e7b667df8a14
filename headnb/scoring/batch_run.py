"""One pass over the pending batches of a score table, in this process or on a Dask cluster."""

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
from headnb.scoring.progress import NotFiniteError, Progress, ScoringInterrupted, is_out_of_memory, smaller_budget
from headnb.scoring.workers import MAX_ATTEMPTS, LostError, ModelLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    import xarray as xr
    from torch import Tensor

    from headnb.engine.batching import Batch, Side
    from headnb.engine.tokenization import EncodedTask
    from headnb.scoring.registry import PreparedScorer
    from headnb.scoring.scorers import Scorers
    from headnb.scoring.stopping import Stopping
    from headnb.scoring.workers import PendingBatches, Scored, Workers
    from headnb.storage.method_results import MethodResults
    from headnb.storage.method_tables import MethodTables

_Done = TypeVar("_Done")


@dataclass
class BatchRun:
    """A pass that scores the pending batches of `tables` and writes the scores into them.

    `rows` are rows of the tables, which are in the processing order; `positions` are positions in the task.
    """

    scorers: Scorers
    encoded: EncodedTask
    tables: MethodTables
    weights: np.ndarray  # (n,): requested loss of a sample divided by its mean loss
    packed: bool
    side: Side  # padding side of batches that are not packed
    budget: int  # maximum number of tokens in a batch; halved when memory runs out
    collect: Callable[[dict[str, xr.Dataset]], xr.Dataset | MethodResults]
    """The result that the caller wants, from the scores by method."""
    on_progress: Callable[[Progress], None] | None = None
    stopping: Mapping[str, Stopping] = field(default_factory=dict)
    """The stopping rule of each method; the run stops when all are reached."""
    workers: Workers | None = None
    """Workers of a cluster that score instead of this process."""
    message: str = ""
    tokens: int = 0
    started: float = field(default_factory=lambda: time.perf_counter())  # noqa: PLW0108  tests replace the clock

    def scores(self) -> xr.Dataset | MethodResults:
        """The scores of the whole task, in the form of `collect`.

        Raises:
            ScoringInterrupted: on Ctrl-C; it holds the scores so far.
        """
        try:
            self._score_pending()
            self.tables.verify()
        except KeyboardInterrupt:
            raise ScoringInterrupted(self.collect(self.tables.scores())) from None
        scores = {method: of.assign_attrs(padding=self._padding()) for method, of in self.tables.scores().items()}
        for method, stopping in self.stopping.items():
            scores[method] = scores[method].assign_attrs(until=stopping.rule.words)
        return self.collect(scores)

    def _score_pending(self) -> None:
        if self._should_stop():
            return
        pending = self.tables.pending()
        pending_tokens = sum(int(self._lengths(rows).sum()) for rows in pending)
        before = int(self.tables.done.sum())
        for scorer in self.scorers.prepared.values() if pending else ():
            for _ in self._process(self.tables.plan.batches(), partial(self._prepare, scorer)):
                self._report(before, pending_tokens, "first pass over the task")
        self._report(before, pending_tokens)
        scored = (
            self._process(pending, self._score)
            if self.workers is None
            else self._process_on_workers(pending, self.workers)
        )
        with closing(scored):  # after an error here the workers' pending batches are cancelled at once
            for rows, (scores, losses) in scored:
                self.tables.write(rows, *self._weighted(rows, scores, losses))
                self.tokens += int(self._lengths(rows).sum())
                self._report(before, pending_tokens)
                if self._should_stop():
                    return

    def _padding(self) -> float:
        """Fraction of padding among the tokens of all batches of the plan."""
        batches = self.tables.plan.batches()
        computed = sum(int(self._padded_tokens(rows).sum()) for rows in batches)
        return 1 - int(self.encoded.lengths.sum()) / computed

    def _should_stop(self) -> bool:
        tables = self.tables.by_method
        reached = {method: stopping.reached(tables[method]) for method, stopping in self.stopping.items()}
        return bool(reached) and all(reached[method] for method in self.tables.unfinished or reached)

    def _process(
        self, batches: list[np.ndarray], work: Callable[[np.ndarray], _Done]
    ) -> Generator[tuple[np.ndarray, _Done]]:
        """Each batch with the result of `work`. After memory ran out, the remaining batches are smaller."""
        queue = deque(self._within_budget(batches))
        while queue:
            rows = queue.popleft()
            done = self._try_batch(work, rows)
            if done is None:
                self._shrink_budget(rows)
                queue = deque(self._within_budget([rows, *queue]))
            else:
                yield rows, done

    def _process_on_workers(self, batches: list[np.ndarray], workers: Workers) -> Generator[tuple[np.ndarray, Scored]]:
        """Score batches on a cluster; yields them in the order in which they are done."""
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
    ) -> Generator[tuple[np.ndarray, Scored]]:
        """Submit the batches in the queue, a few at a time, and yield the results."""
        while queue or running:
            while queue and len(running) < workers.max_pending:
                rows = queue.popleft()
                running.submit(rows, self._batch(rows), self.budget)
            rows, done = running.next()
            if done is None:
                self._shrink_budget(rows)
                smaller = self._within_budget([rows, *queue])
                queue.clear()
                queue.extend(smaller)
            else:
                yield rows, done

    def _missing_message(self) -> str:
        """How many samples are not scored if the run ends now, and how to continue."""
        missing = f"{int((~self.tables.done).sum())} of {len(self.tables.done)} samples are not scored"
        if self.tables.on_disk:
            return f"{missing}; the scored ones are saved: run the same call with a new client to resume"
        return f"{missing}; out= would have saved the scored ones"

    def _try_batch(self, work: Callable[[np.ndarray], _Done], rows: np.ndarray) -> _Done | None:
        """The result of `work`; None if memory ran out. Afterwards nothing refers to the failed batch's tensors."""
        try:
            return work(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _prepare(self, scorer: PreparedScorer, rows: np.ndarray) -> bool:
        scorer.prepare(self._batch(rows))
        return True

    def _score(self, rows: np.ndarray) -> Scored:
        return self.scorers(self._batch(rows), budget=self.budget)

    def _weighted(
        self, rows: np.ndarray, scores: dict[str, Tensor], losses: Tensor
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Scores (b, L, H) of the requested loss by method, and mean losses (b,), of one batch."""
        positions = self.tables.plan.order[rows]
        for of_method in scores.values():
            self._check_finite(positions, of_method, losses)
        weights = self.weights[positions][:, None, None]
        return {method: of_method.numpy() * weights for method, of_method in scores.items()}, losses.numpy()

    def _batch(self, rows: np.ndarray) -> Batch:
        samples = [self.encoded.samples[position] for position in self.tables.plan.order[rows]]
        if self.packed and len({len(sample) for sample in samples}) > 1:
            return pack(samples)
        return collate(samples, side=self.side)  # samples of one length need no padding

    def _check_finite(self, positions: np.ndarray, scores: Tensor, losses: Tensor) -> None:
        expected = torch.tensor([heads > 0 for heads in self.scorers.layout.heads])
        broken = ~scores[:, expected].sum(-1).isfinite()  # (b, layers with heads)
        broken_samples = (~losses.isfinite() | broken.any(1)).nonzero()[:, 0]
        if not len(broken_samples):
            return
        row = int(broken_samples[0])
        sample_id, sample = self.encoded.ids[positions[row]], self.encoded.samples[positions[row]]
        if not losses[row].isfinite():
            raise NotFiniteError(f"the loss of sample {sample_id!r} is {losses[row].item()}", sample)
        layer = int(expected.nonzero()[:, 0][broken[row]][-1])
        raise NotFiniteError(f"the scores of sample {sample_id!r} are not finite from layer {layer} down", sample)

    def _shrink_budget(self, failed: np.ndarray) -> None:
        """Halve the budget after a batch ran out of memory."""
        tokens = int(self._padded_tokens(failed).sum())
        if len(failed) > 1 and tokens > self.budget:  # it was sent to a worker before the budget was halved
            return
        self.budget = smaller_budget(self.budget, self._lengths(failed), tokens)
        self.message = f"out of memory with {tokens} tokens per batch; continuing with {self.budget}"

    def _within_budget(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Split batches to fit the budget, and store the new plan in the table."""
        smaller = [part for rows in batches for part in self._split(rows)]
        if len(smaller) > len(batches):
            batch = self.tables.plan.batch.copy()
            for number, rows in enumerate(smaller, start=int(batch.max()) + 1):
                batch[rows] = number
            self.tables.replan(BatchPlan(self.tables.plan.order, batch))
        return smaller

    def _split(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[group] for group in split_at_budget(self._padded_tokens(rows), self.budget)]

    def _padded_tokens(self, rows: np.ndarray) -> np.ndarray:
        """Tokens that each sample takes in a batch of these samples, padding included."""
        lengths = self._lengths(rows)
        return lengths if self.packed else np.full_like(lengths, lengths.max())

    def _lengths(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.encoded.lengths[self.tables.plan.order[rows]])

    def _report(self, before: int, pending_tokens: int, doing: str = "") -> None:
        if self.on_progress is None:
            return
        seconds = time.perf_counter() - self.started
        done = int(self.tables.done.sum())
        left = seconds * (pending_tokens - self.tokens) / self.tokens if self.tokens else None
        self.on_progress(
            Progress(
                done=done,
                total=len(self.tables.done),
                seconds=seconds,
                samples_per_second=(done - before) / seconds if seconds else 0.0,
                seconds_left=left,
                tokens=self.tokens,
                message=doing or self.message,
                scores=lambda: self.collect(self.tables.scores(whole_blocks_of=BLOCK)),
            )
        )
