"""The queue: a few requests are computed at a time, some wait, the others are refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import cancellation  # there is no public way to stop a running function

from tfvamp_cli.serving.limits import Limits, Refused


class ClientLeft(Exception):
    """The client left before its answer was ready."""


class Desk:
    """Computes answers on its own threads, so that the other addresses can answer meanwhile.

    A request that is not ready at its deadline, or whose client has left, is stopped between two operations of the model.

    Attributes:
      pending: number of requests that are computed or wait.
      counts: numbers of requests answered, refused, and left by their client, for the page.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.pending = 0
        self.counts = {"answered": 0, "refused": 0, "left": 0}
        self._threads = concurrent.futures.ThreadPoolExecutor(limits.workers, "predict")
        self._running: set[cancellation.CancellationManager] = set()
        self._seconds = 0.1  # duration of a request, a running mean

    async def compute(self, work: Callable[[], bytes], leaves: Coroutine[Any, Any, None]) -> bytes:
        """Returns the result of `work`.

        Args:
          work: called on another thread.
          leaves: ends when the client leaves.

        Raises:
          Refused: too many wait (503), it waited too long (503) or took too long (504), or as `work`.
          ClientLeft: `leaves` has ended.
        """
        client = asyncio.ensure_future(leaves)
        try:
            result = await self._compute(work, client)
        except Refused:
            self.counts["refused"] += 1
            raise
        except ClientLeft:
            self.counts["left"] += 1
            raise
        finally:
            client.cancel()
        self.counts["answered"] += 1
        return result

    def check_free(self) -> None:
        """Raises Refused if no more requests may wait."""
        if self.pending >= self.limits.workers + self.limits.waiting:
            raise Refused(503, "too many requests are waiting: ask again later", self._retry_after())

    async def _compute(self, work: Callable[[], bytes], client: asyncio.Future[None]) -> bytes:
        self.check_free()
        loop, manager = asyncio.get_running_loop(), cancellation.CancellationManager()
        asked, begun = time.monotonic(), math.inf

        def begin() -> bytes:
            nonlocal begun
            begun = time.monotonic()
            return work()

        job = self._threads.submit(self._on_a_thread, begin, manager)
        self.pending += 1
        job.add_done_callback(functools.partial(self._done, loop))
        result = asyncio.wrap_future(job)
        result.add_done_callback(lambda one: one.cancelled() or one.exception())  # it may have no reader
        either: set[asyncio.Future[Any]] = {result, client}
        done, _ = await asyncio.wait(
            either, timeout=self.limits.deadline, return_when=asyncio.FIRST_COMPLETED
        )
        if result in done:
            return result.result()
        job.cancel()
        manager.start_cancel()
        if client in done:
            raise ClientLeft
        if (waited := begun - asked) > self.limits.deadline / 2:
            raise Refused(
                503,
                f"the request waited for {min(waited, self.limits.deadline):.2g} of the {self.limits.deadline:g} seconds "
                "that it may take: ask again later",
                self._retry_after(),
            )
        raise Refused(
            504,
            f"the request takes longer than {self.limits.deadline:g} seconds: ask for fewer images or samples",
        )

    def _on_a_thread(self, work: Callable[[], bytes], manager: cancellation.CancellationManager) -> bytes:
        start = time.monotonic()
        self._running.add(manager)
        try:
            with cancellation.CancellationManagerContext(manager):
                return work()
        except tf.errors.CancelledError:  # nobody reads this
            return b""
        finally:
            self._running.discard(manager)
            self._seconds += 0.1 * (time.monotonic() - start - self._seconds)

    def _done(self, loop: asyncio.AbstractEventLoop, job: concurrent.futures.Future[bytes]) -> None:
        def count() -> None:
            self.pending -= 1

        with contextlib.suppress(RuntimeError):  # the server has stopped
            loop.call_soon_threadsafe(count)

    def _retry_after(self) -> int:
        """Returns the approximate number of seconds until the requests that wait now are done."""
        return max(1, math.ceil(self._seconds * self.pending / self.limits.workers))

    def close(self) -> None:
        """Stops running computations, so that the process can end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for manager in list(self._running):
            manager.start_cancel()
