"""An evaluation that several processes divide: each computes its share of the images, the first one collects."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, MutableMapping

import numpy as np

from tfvamp.errors import UsageError

Kept = MutableMapping[str, dict[str, np.ndarray]]  # arrays of finished blocks, by name
MOST = 1000  # processes
SHORTEST_WAIT = (
    60.0  # seconds without a new block after which the first process computes those that are missing
)
SLOWEST = 3.0  # and at least so many times what a block of its own took
BETWEEN_LOOKS = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of several equal parts of the images a process computes.

    Attributes:
      index: from 0; the process with 0 collects what the others computed.
      count: the number of processes.

    >>> share_of("2/4")
    Share(index=1, count=4)
    """

    index: int
    count: int

    @property
    def collects(self) -> bool:
        """Whether this process waits for the others, and has the result."""
        return self.index == 0

    def owns(self, unit: int, total: int) -> bool:
        """Whether the images from index `unit` on, of `total`, are in this share."""
        return unit * self.count // total == self.index


def share_of(text: str | None) -> Share | None:
    """The share that "I/N" names, I from 1 to N; None of None.

    Raises:
      UsageError: it is not of this form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= MOST:
        raise UsageError(f"a share must be I/N with I from 1 to N, such as 2/4; got {text!r}")
    return Share(int(match[1]) - 1, int(match[2]))


class ShareDone(Exception):
    """What ends the evaluation of a process that does not collect: its share is computed and kept."""


class Shared(MutableMapping):
    """Finished blocks that several processes see, and the share of this one.

    Args:
      kept: the blocks, in a place that all processes see.
      share: of this process.
    """

    def __init__(self, kept: Kept, share: Share):
        self._kept, self.share = kept, share
        self._patience = SHORTEST_WAIT
        self._last = time.monotonic()  # when a block was last finished, by whomever
        self._count = len(kept)

    def to_compute(self, name: str, unit: int, total: int) -> bool:
        """Whether this process computes a block, or collects it; waits for what another one computes.

        Args:
          name: of the block.
          unit, total: as in `Share.owns`.
        """
        if self.share.owns(unit, total):
            return True
        if self.share.collects:
            self._wait(name)
        return self.share.collects

    def _wait(self, name: str) -> None:
        """Waits for a block of another process, as long as any process finishes blocks."""
        while name not in self._kept:
            count, now = len(self._kept), time.monotonic()
            if count != self._count:
                self._count, self._last = count, now
            if now - self._last > self._patience:
                return
            time.sleep(BETWEEN_LOOKS)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        return self._kept[name]

    def __setitem__(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        now = time.monotonic()
        self._patience = max(self._patience, SLOWEST * (now - self._last))
        self._kept[name] = arrays
        self._last, self._count = now, len(self._kept)

    def __delitem__(self, name: str) -> None:
        del self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
