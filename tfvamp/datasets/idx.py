"""IDX files, in which MNIST and its successors are published: images and labels as bytes."""

from __future__ import annotations

import math
import pathlib
import struct
from collections.abc import Sequence

import numpy as np

from tfvamp.datasets import sources
from tfvamp.errors import DataError
from tfvamp.files import shown

LARGEST_COUNT = 70_000  # images or labels in one file
NUM_CLASSES = 10
NUM_VALIDATION = 10_000  # the last of the training images


def read_all(paths: Sequence[pathlib.Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images [N, 28, 28] and labels [N] for training, then for the test, from four files in this order.

    Raises:
      DataError: a file is not an IDX file of this kind, or the files do not belong together.
    """
    images, labels, test, test_labels = (read(path) for path in paths)
    for pixels, classes, path in ((images, labels, paths[1]), (test, test_labels, paths[3])):
        if (
            pixels.shape[1:] != (28, 28)
            or classes.shape != pixels.shape[:1]
            or classes.max(initial=0) >= NUM_CLASSES
        ):
            raise DataError(
                f"{shown(path)} and the images beside it must hold [N, 28, 28] pixels and [N] labels from 0 to 9; "
                f"got {list(pixels.shape)} and {list(classes.shape)}"
            )
    if len(images) <= NUM_VALIDATION:
        raise DataError(f"{shown(paths[0])} must hold more than {NUM_VALIDATION} images; got {len(images)}")
    return images, labels, test, test_labels


def read(path: pathlib.Path) -> np.ndarray:
    """Returns the array of bytes in an IDX file.

    Raises:
      DataError: the file is not an IDX file.
    """
    contents = sources.read_bytes(path)
    rank = contents[3] if len(contents) > 4 and contents[:3] == b"\x00\x00\x08" else 0
    header = 4 + 4 * rank
    if not 1 <= rank <= 3 or len(contents) < header:
        raise DataError(f"{shown(path)} is not an IDX file of bytes: fetch it again")
    shape = struct.unpack(f">{rank}I", contents[4:header])
    if shape[0] > LARGEST_COUNT:
        raise DataError(
            f"{shown(path)} must hold {LARGEST_COUNT} images or labels at most; its header says {shape[0]}"
        )
    if len(contents) - header != math.prod(shape) or not shape[0]:
        raise DataError(
            f"{shown(path)} must hold {' x '.join(map(str, shape))} bytes after its header, as that says; "
            f"got {len(contents) - header}: fetch it again"
        )
    return np.frombuffer(contents, np.uint8, offset=header).reshape(shape)
