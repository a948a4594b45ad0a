"""The maximum cost of a request, and the error for requests that cost more."""

from __future__ import annotations

import dataclasses

from tfvamp_cli import light

setting = light.config.setting
OPTIONS = (
    "max_images",
    "max_draws",
    "deadline",
    "workers",
    "waiting",
)  # options of the command; the others are fixed


@dataclasses.dataclass(frozen=True)
class Limits:
    """The maximum cost of a request, and of all requests together.

    Raises:
      UsageError: a value has the wrong type, or is outside its bounds.
    """

    max_images: int = setting(1024, "Largest number of images or latents per request.", metavar="N", least=1)
    max_draws: int = setting(
        200_000, "Images times samples per request for log-likelihoods.", metavar="N", least=1, most=2**62
    )
    deadline: float = setting(
        30.0,
        "Stop a request that takes longer, including its time in the queue.",
        metavar="SECONDS",
        least=0.1,
        most=86_400,
    )
    workers: int = setting(2, "Requests computed at the same time.", metavar="N", least=1, most=256)
    waiting: int = setting(
        32, "Requests that may wait; others are answered with 503.", metavar="N", least=0, most=10_000
    )
    max_values: int = setting(2**21, "Largest number of values in an answer.", least=1)
    max_body: int = setting(8 * 2**20, "Largest body of a request, in bytes.", least=1)
    connections: int = setting(256, "Clients that may be connected at the same time.", least=1)
    patience: float = setting(
        15.0, "Seconds in which a client must send a request, or take the next part of an answer.", least=0.1
    )
    held: int = setting(512 * 2**20, "Bodies and answers in memory at the same time, in bytes.", least=1)

    def __post_init__(self):
        light.config.check_fields(self)


class Refused(Exception):
    """A request that is not answered.

    Args:
      status: HTTP status.
      text: the reason, in one line.
      retry_after: seconds after which the client may ask again.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None):
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after
