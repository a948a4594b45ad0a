"""What a request may cost, and the error for those that cost more."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request, and all of them together, may cost.

    Attributes:
      max_images: the largest number of images or latents of a request.
      max_draws: the largest number of images times `num_samples` of a request.
      max_values: the largest number of values in an answer.
      max_body: the largest body of a request, in bytes.
      deadline: seconds from the end of a request's body to its answer.
      workers: requests that are computed at a time.
      waiting: requests that may wait for a worker.
      connections: clients that may be connected at a time.
      patience: seconds in which a client must send a request, or take the next part of an answer.
      held: the bodies and answers in memory at a time, in bytes.
    """

    max_images: int = 1024
    max_draws: int = 200_000
    max_values: int = 2**21
    max_body: int = 8 * 2**20
    deadline: float = 30.0
    workers: int = 2
    waiting: int = 32
    connections: int = 256
    patience: float = 15.0
    held: int = 512 * 2**20


class Refused(Exception):
    """A request that is not answered.

    Args:
      status: of HTTP.
      text: the reason, in one line.
      retry_after: seconds after which to ask again.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None):
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after
