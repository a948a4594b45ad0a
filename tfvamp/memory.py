"""The available memory: what needs more is refused before any is allocated."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource

from tfvamp.errors import UsageError
from tfvamp.files import size

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available() -> int:
    """Returns the memory in bytes that this process may use: the machine's, or a container's or a user's smaller limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such limit, or the word "max"
            limits.append(int(pathlib.Path(path).read_text()))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits)


def check(needed: float, what: str, advice: str) -> None:
    """Raises UsageError if something needs more memory than there is.

    Args:
      needed: number of bytes.
      what: what needs them, such as "K = 10000000 components".
      advice: what to do instead.
    """
    limit = available()
    if needed > limit:
        raise UsageError(
            f"{what} would need {size(needed)} of memory; this machine has {size(limit)}: {advice}"
        )
