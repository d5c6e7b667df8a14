"""Scoring of batches by the workers of a Dask cluster, each with its own copy of the model.

Workers only compute. The calling process plans the batches and writes the one store, so a lost worker leaves nothing
half written: Dask gives its batches to another worker. Scores take 4 bytes per head and sample, so they are cheap to
send.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sized
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, optional_import
from headnb.scoring.dask_scheduler import best_effort, call_scheduler
from headnb.scoring.progress import is_out_of_memory
from headnb.scoring.scorers import make_scorers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from distributed import Client, Future
    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.scoring.model_transfer import SerializedModel
    from headnb.scoring.registry import Option
    from headnb.scoring.scorers import Scorers

    Scored = tuple[dict[str, Tensor], Tensor]

TIMEOUT_SECONDS = (
    1800.0  # seconds without a finished batch after which the run fails; Dask replaces hanging workers earlier
)
STARTUP_SECONDS = 30.0  # seconds to wait for the first worker, when a cluster starts or replaces its only worker
LOST_MESSAGE = "the Dask scheduler, or every worker that held the model, was lost or hangs"
MAX_ATTEMPTS = 5  # at sending the model, after all workers that held it were lost
BATCHES_PER_THREAD = 2  # batches sent to each worker thread, so that no thread waits for its next batch


@dataclass
class Workers:
    """The workers of a cluster, and the model and methods to score with."""

    client: Client
    model: PreTrainedModel
    methods: Mapping[str, Mapping[str, Option]]
    """Method -> its options."""

    @property
    def max_pending(self) -> int:
        """Maximum number of submitted batches at a time; raises LostError if the scheduler does not answer."""
        return max(1, BATCHES_PER_THREAD * self._threads())

    @contextmanager
    def scoring(self) -> Iterator[PendingBatches]:
        """Send the model to every worker; on exit, cancel the batches that are not done.

        Raises:
            HeadnbError: there are no workers, or the model cannot be sent.
            LostError: the scheduler does not answer.
        """
        self._wait_for_a_worker()
        try:
            sent = self._send()
        except (TypeError, AttributeError, RuntimeError, ImportError, PicklingError) as error:
            raise HeadnbError(f"this model cannot be sent to the workers: {error!s:.200}") from error
        except OSError as error:
            raise HeadnbError("a worker was lost while the model was sent to it; run the same call again") from error
        pending = PendingBatches(self, sent)
        try:
            yield pending
        finally:
            best_effort(lambda: self.client.cancel([*pending.futures, sent]))

    def _threads(self) -> int:
        """Number of threads of all workers."""
        try:
            return sum(call_scheduler(self.client, "ncores", TIMEOUT_SECONDS).values())
        except OSError as error:
            raise LostError(LOST_MESSAGE) from error

    def _wait_for_a_worker(self) -> None:
        """Wait for a worker; Dask's own `wait_for_workers` never ends if the scheduler does not answer."""
        end = time.monotonic() + STARTUP_SECONDS
        while not self._threads():
            if time.monotonic() > end:
                raise HeadnbError("the cluster of client= has no workers")
            time.sleep(0.1)

    def _send(self) -> Future[SerializedModel]:
        """The model on every worker: sent directly if workers can be reached, else through the scheduler."""
        from headnb.models.locks import model_lock  # noqa: PLC0415
        from headnb.scoring.model_transfer import SerializedModel  # noqa: PLC0415  needs cloudpickle, a part of Dask

        with model_lock(self.model):  # so that hooks of another thread are not pickled
            model = SerializedModel.of(self.model)
        sent: Future[SerializedModel]
        try:
            sent = self.client.scatter(model, broadcast=True, hash=False, direct=True)
        except OSError:
            sent = self.client.scatter(model, broadcast=True, hash=False, direct=False)
        return sent


class LostError(Exception):
    """Submitted batches will not return."""


class ModelLostError(LostError):
    """The last worker that held the model is gone; the batches can be submitted again.

    Dask keeps only one copy of a model sent to every worker, once no task waits for it.
    """


@dataclass
class PendingBatches(Sized):
    """Batches that are submitted to the workers."""

    workers: Workers
    model: Future[SerializedModel]
    futures: dict[Future[Any], np.ndarray] = field(default_factory=dict)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __len__(self) -> int:
        """Number of pending batches."""
        return len(self.futures)

    def submit(self, rows: np.ndarray, batch: Batch, budget: int) -> None:
        """Submit a batch; `rows` are its rows of the score table."""
        workers = self.workers
        future = workers.client.submit(_score, self.run, self.model, workers.methods, batch, budget, pure=False)
        self.futures[future] = rows

    def next(self) -> tuple[np.ndarray, Scored | None]:
        """Wait for a batch: its rows of the table; scores (b, L, H) by method and losses (b,), or None without memory.

        Raises:
            LostError: workers died repeatedly with this batch, the model or the whole cluster was lost, or no batch
                returned in time.
        """
        from distributed import KilledWorker, wait  # noqa: PLC0415

        try:
            with self.workers.client.as_current():
                ended = wait(list(self.futures), timeout=TIMEOUT_SECONDS, return_when="FIRST_COMPLETED").done
            future = next(future for future in self.futures if future in ended)
            scored = future.result(timeout=TIMEOUT_SECONDS)
        except KilledWorker as error:
            raise LostError(f"workers died on a batch of {len(self.futures[future])} samples") from error
        except CancelledError as error:
            connected = self.workers.client.status == "running"
            raise (ModelLostError if connected else LostError)(LOST_MESSAGE) from error
        except TimeoutError as error:
            raise LostError(f"no batch came back from the workers in {TIMEOUT_SECONDS / 60:.3g} minutes") from error
        return self.futures.pop(future), scored


def checked_client(client: Any) -> Client:
    """The Dask client; raises HeadnbError for anything else."""
    with optional_import("suite"):
        from distributed import Client  # noqa: PLC0415
    if not isinstance(client, Client) or client.asynchronous:
        raise HeadnbError(f"client= must be a synchronous distributed.Client, not {type(client).__name__}")
    return client


# In a worker process: the scorers of the current run, one for each copy of the model.
_scorers: dict[tuple[str, int], Scorers] = {}
_scorer_lock = threading.Lock()


def _score(
    run: str, sent: SerializedModel, methods: Mapping[str, Mapping[str, Option]], batch: Batch, budget: int
) -> Scored | None:
    """On a worker: scores and losses of a batch; None if memory ran out."""
    from headnb.models.locks import model_lock  # noqa: PLC0415

    model = sent.model
    with model_lock(model):
        with _scorer_lock:
            if (run, id(model)) not in _scorers:
                for other in [key for key in _scorers if key[0] != run]:
                    del _scorers[other]
                _scorers[run, id(model)] = make_scorers(model, methods)
            scorer = _scorers[run, id(model)]
        try:
            return scorer(batch, budget=budget)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
