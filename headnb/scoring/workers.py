"""Batches scored by the workers of a Dask cluster, each with a copy of the model of its own.

Workers only compute. The process that asks plans the batches and writes the one store, so that a lost worker leaves
nothing half written: Dask gives its batches to another one. Scores are as small (4 bytes a head and sample) as tokens.
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
from headnb.scoring.registry import find_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from distributed import Client, Future
    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.scoring.model_transfer import SerializedModel
    from headnb.scoring.registry import Option, Scorer

    Scored = tuple[Tensor, Tensor]

TIMEOUT_SECONDS = (
    1800.0  # seconds without any batch until a cluster is given up; before, Dask replaces workers that hang
)
STARTUP_SECONDS = 30.0  # seconds for a first worker to come, where a cluster starts, or replaces the only one
LOST_MESSAGE = "the Dask scheduler, or every worker that held the model, was lost or hangs"
MAX_ATTEMPTS = 5  # at sending the model, after workers were lost that held it
BATCHES_PER_THREAD = 2  # batches sent to each thread of a worker, so that none waits for the next


@dataclass
class Workers:
    """The workers of a cluster, and what they need to score with one method."""

    client: Client
    model: PreTrainedModel
    method: str
    settings: Mapping[str, Option]

    @property
    def max_pending(self) -> int:
        """How many batches may be out at a time; raises LostError where nobody answers."""
        return max(1, BATCHES_PER_THREAD * self._threads())

    @contextmanager
    def scoring(self) -> Iterator[PendingBatches]:
        """Send the model to every worker; what is still out when the context closes is called back.

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
            raise HeadnbError("a worker was lost while the model was sent to it; the same call tries again") from error
        pending = PendingBatches(self, sent)
        try:
            yield pending
        finally:
            best_effort(lambda: self.client.cancel([*pending.futures, sent]))

    def _threads(self) -> int:
        """Of all workers."""
        try:
            return sum(call_scheduler(self.client, "ncores", TIMEOUT_SECONDS).values())
        except OSError as error:
            raise LostError(LOST_MESSAGE) from error

    def _wait_for_a_worker(self) -> None:
        """Dask's own waiting never ends where the scheduler does not answer."""
        end = time.monotonic() + STARTUP_SECONDS
        while not self._threads():
            if time.monotonic() > end:
                raise HeadnbError("the cluster of client= has no workers")
            time.sleep(0.1)

    def _send(self) -> Future[SerializedModel]:
        """The model, on every worker; from here where they can be reached, else through the scheduler's memory."""
        from headnb.models.locks import model_lock  # noqa: PLC0415  which is built on this module
        from headnb.scoring.model_transfer import SerializedModel  # noqa: PLC0415  what it needs comes with Dask

        with model_lock(self.model):  # another thread's hooks stay here
            model = SerializedModel.of(self.model)
        sent: Future[SerializedModel]
        try:
            sent = self.client.scatter(model, broadcast=True, hash=False, direct=True)
        except OSError:
            sent = self.client.scatter(model, broadcast=True, hash=False, direct=False)
        return sent


class LostError(Exception):
    """Batches will not come back."""


class ModelLostError(LostError):
    """They will not, but may be sent again: the worker that is gone was the last that held the model.

    Dask keeps one copy of what is sent to every worker, once none waits for it.
    """


@dataclass
class PendingBatches(Sized):
    """Batches that are out."""

    workers: Workers
    model: Future[SerializedModel]
    futures: dict[Future[Any], np.ndarray] = field(default_factory=dict)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __len__(self) -> int:
        """How many."""
        return len(self.futures)

    def submit(self, places: np.ndarray, batch: Batch, budget: int) -> None:
        """Send a batch out."""
        about = self.workers
        future = about.client.submit(
            _score, self.run, self.model, about.method, dict(about.settings), batch, budget, pure=False
        )
        self.futures[future] = places

    def next(self) -> tuple[np.ndarray, Scored | None]:
        """Wait for one: its places, and scores (b, L, H) and losses (b,), or None where memory ran out.

        Raises:
            LostError: workers were lost with this batch again and again, the model or the whole cluster was, or
                nothing comes.
        """
        from distributed import KilledWorker, wait  # noqa: PLC0415

        try:
            with self.workers.client.as_current():
                ended = wait(list(self.futures), timeout=TIMEOUT_SECONDS, return_when="FIRST_COMPLETED").done
            future = next(future for future in self.futures if future in ended)
            scored = future.result(timeout=TIMEOUT_SECONDS)
        except KilledWorker as error:
            raise LostError(f"workers died over a batch of {len(self.futures[future])} samples") from error
        except CancelledError as error:
            connected = self.workers.client.status == "running"
            raise (ModelLostError if connected else LostError)(LOST_MESSAGE) from error
        except TimeoutError as error:
            raise LostError(f"no batch came back from the workers in {TIMEOUT_SECONDS / 60:.3g} minutes") from error
        return self.futures.pop(future), scored


def checked_client(client: Any) -> Client:
    """A Dask client; raises HeadnbError for anything else."""
    with optional_import("suite"):
        from distributed import Client  # noqa: PLC0415
    if not isinstance(client, Client) or client.asynchronous:
        raise HeadnbError(f"client= takes a distributed.Client that is not asynchronous, not {type(client).__name__}")
    return client


# In a process of workers: the scorers of the run that they work for, one for each copy of the model.
_scorers: dict[tuple[str, int], Scorer] = {}
_scorer_lock = threading.Lock()


def _score(
    run: str, sent: SerializedModel, method: str, settings: dict[str, Option], batch: Batch, budget: int
) -> Scored | None:
    """On a worker: scores and losses of a batch; None where memory ran out."""
    from headnb.models.locks import model_lock  # noqa: PLC0415  which is built on this module

    model = sent.model
    with model_lock(model):
        with _scorer_lock:
            if (run, id(model)) not in _scorers:
                make = find_method(method).scorer
                assert make is not None  # noqa: S101  methods without scores of samples are refused before
                for other in [key for key in _scorers if key[0] != run]:
                    del _scorers[other]
                _scorers[run, id(model)] = make(model, **settings)
            scorer = _scorers[run, id(model)]
        try:
            return scorer(batch, budget=budget)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
