"""An evaluation divided among several processes: each computes its share of the images, the first one collects."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, MutableMapping

import numpy as np

from tfvamp.errors import RunError, UsageError

Kept = MutableMapping[str, dict[str, np.ndarray]]  # arrays of finished blocks, by name
MOST = 1000  # maximum number of processes
SHORTEST_WAIT = (
    60.0  # seconds without a new block after which the first process computes those that are missing
)
SLOWEST = 3.0  # and at least this many times the duration of its own slowest block
BETWEEN_LOOKS = 1.0  # seconds


@dataclasses.dataclass(frozen=True)
class Share:
    """The share of the images that one of several processes computes.

    Attributes:
      index: from 0; the process with index 0 collects what the others computed.
      count: the number of processes.

    >>> share_of("2/4")
    Share(index=1, count=4)
    """

    index: int
    count: int

    @property
    def collects(self) -> bool:
        """Whether this process waits for the others, and returns the result."""
        return self.index == 0

    def owns(self, unit: int, total: int) -> bool:
        """Returns whether the images from index `unit` on, out of `total`, belong to this share."""
        return unit * self.count // total == self.index


def share_of(text: str | None) -> Share | None:
    """Returns the share that "I/N" names, with I from 1 to N; None for None.

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
    """An exception that ends the evaluation of a process that does not collect: its share is computed and kept."""


class Shared(MutableMapping):
    """Finished blocks that several processes see, and the share of this process.

    Args:
      kept: the blocks, in a place that all processes see.
      share: share of this process.
      say: a function that gets one line of text when it first waits for a block of another process.
    """

    def __init__(self, kept: Kept, share: Share, say: Callable[[str], None] = lambda text: None):
        self._kept, self.share, self._say = kept, share, say
        self._own: set[str] = set()  # names of blocks that this process computed
        self._patience = SHORTEST_WAIT
        self._began = self._heard = time.monotonic()  # times of its own last block and of another process's
        self._of_others = len(kept)
        self._told = False  # whether it has said that it waits
        self._alone = False  # whether nothing has been heard of the others for too long

    def to_compute(self, name: str, unit: int, total: int) -> bool:
        """Returns whether this process computes or collects a block, after waiting for another process if needed.

        Args:
          name: name of the block.
          unit, total: as in `Share.owns`.
        """
        owned = self.share.owns(unit, total)
        if not owned and not self.share.collects:
            return False
        if not owned:
            self._wait(name)
        self._began = time.monotonic()
        return True

    def _wait(self, name: str) -> None:
        """Waits for a block of another process, as long as any other process finishes blocks."""
        began = time.monotonic()
        while name not in self._kept:
            of_others, now = len(set(self._kept) - self._own), time.monotonic()
            if of_others != self._of_others:
                self._of_others, self._heard, self._alone = of_others, now, False
            if self._alone or now - max(began, self._heard) > self._patience:
                if not self._alone:
                    self._say(
                        "nothing comes from the other processes: what they have not done is computed here"
                    )
                self._alone = True
                return
            if not self._told and now - began > BETWEEN_LOOKS:
                self._told = True
                self._say(
                    f"waiting for the other processes ({self.share.count - 1}), which must have the same options, such as --samples"
                )
            time.sleep(BETWEEN_LOOKS)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        return self._kept[name]

    def __setitem__(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        self._patience = max(self._patience, SLOWEST * (time.monotonic() - self._began))
        self._kept[name] = arrays
        self._own.add(name)
        if not self.share.collects and name not in self._kept:
            raise RunError(
                "a share cannot be kept: the run folder must be writable, and your key readable (the same home folder, or "
                "XDG_STATE_HOME, on all machines)"
            )

    def __delitem__(self, name: str) -> None:
        if name in self._own:
            del self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
