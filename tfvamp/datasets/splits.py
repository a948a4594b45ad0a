"""Training, validation and test: their names, and how images that come in one piece are split."""

from __future__ import annotations

from tfvamp.config import SPLITS, SplitName
from tfvamp.errors import DataError
from tfvamp.files import counted

__all__ = ["SHARE", "SPLITS", "SPLIT_SEED", "SplitName", "split_counts"]

# The seed of every shuffle that nobody published: the date of arXiv 1705.07120v1.
SPLIT_SEED = 20170519
SHARE = 10  # one image in ten is for validation, and one in ten for the test


def split_counts(count: int, what: str) -> dict[str, int]:
    """Returns the numbers of training, validation and test images: one in ten each for the last two, at least one.

    Raises:
      DataError: a split would be empty.
    """
    part = max(1, count // SHARE)
    if count < 3:
        raise DataError(f"{what} has {counted(count, 'image')}: at least 3 are needed, one for each split")
    return {"train": count - 2 * part, "validation": part, "test": part}
