"""Computing the past on a cluster: the client's side of dask.distributed, on this machine's cores or at a scheduler's address."""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from analytics.backfill import Computed, Task, compute, decode
from devices.errors import UnavailableError, UnsupportedError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Progress", "cluster", "computed"]

_CONNECT_S = 30
_AHEAD = 4  # tasks in flight for each thread of the cluster: bounds what waits for the task before it


class Progress(msgspec.Struct):
    """How far it is."""

    done: int
    total: int
    seconds: float
    windows: int = 0
    values: int = 0
    left_out: int = 0
    readings: int = 0

    @property
    def rest_s(self) -> float | None:
        """How long the rest takes at this rate [s]; None at the beginning."""
        return self.seconds / self.done * (self.total - self.done) if self.done else None


@contextmanager
def cluster(scheduler: str | None, workers: int) -> Iterator[Client]:
    """Reach a scheduler by address, or run one here with worker processes of a thread each until the end of the block.

    Raises UnsupportedError where dask.distributed is not installed, UnavailableError where no scheduler or worker answers.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UnsupportedError(
            "dask.distributed is not installed", hint="install it on every host: pip install 'qala[cluster]'"
        ) from error
    if scheduler is not None:
        with _reached(scheduler), Client(scheduler, timeout=_CONNECT_S, set_as_default=False) as client:
            yield _with_workers(client)
        return
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield _with_workers(client)


def _with_workers(client: Client) -> Client:
    try:
        client.wait_for_workers(1, timeout=_CONNECT_S)
    except TimeoutError as error:
        raise UnavailableError("the scheduler has no workers", hint="start some: dask worker ADDRESS") from error
    return client


@contextmanager
def _reached(scheduler: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"no scheduler answers at {scheduler}", hint="start one with: dask scheduler, and name its address"
        ) from error


def computed(
    client: Client, tasks: Sequence[Task], on_progress: Callable[[Progress], None] = lambda _: None
) -> Iterator[Computed]:
    """Compute tasks on a cluster and yield what each came to, in their order.

    Tasks of workers that died are computed again by others. Raises UnavailableError where that happened to one task again
    and again, or where the scheduler is gone; and what a task itself raised.
    """
    began, name = time.monotonic(), uuid.uuid4().hex
    progress = Progress(0, len(tasks), 0.0)
    waiting = enumerate(tasks)
    threads = sum(client.nthreads().values()) or 1
    flying: deque[object] = deque()
    while True:
        for number, task in islice(waiting, _AHEAD * threads - len(flying)):
            flying.append(client.submit(compute, msgspec.json.encode(task), key=f"backfill-{name}-{number:06d}"))
        if not flying:
            return
        found = decode(_result(flying.popleft()))
        progress.done += 1
        progress.seconds = time.monotonic() - began
        progress.windows += found.windows
        progress.values += len(found.values)
        progress.left_out += found.left_out
        progress.readings += found.readings
        on_progress(progress)
        yield found


def _result(future: object) -> bytes:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        result: bytes = future.result()  # type: ignore[attr-defined]
    except KilledWorker as error:
        raise UnavailableError(
            f"workers die of a task: {error}",
            hint="look at their logs and memory; analytics.readings_max makes tasks smaller",
        ) from error
    except CancelledError as error:
        raise UnavailableError(f"the scheduler let go of a task: {error}", hint="run the same command again") from error
    return result
