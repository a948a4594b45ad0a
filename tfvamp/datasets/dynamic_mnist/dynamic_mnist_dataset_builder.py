"""Dynamic MNIST: grey training digits, validation and test binarised once with the paper's very bits."""

from __future__ import annotations

import math
import pathlib
import struct
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import sources
from tfvamp.errors import DataError
from tfvamp.files import shown

ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist"
SOURCES = tuple(
    sources.Source(name, f"{ADDRESS}/{name}.gz", md5=md5)
    for name, md5 in (
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
    )
)
NUM_VALIDATION = 10_000  # the last of the training images
LARGEST_COUNT = 70_000  # images or labels of a file
BINARIZATION_SEED = 777  # of the paper's code: one NumPy generator, validation first, then test


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for dynamic_mnist."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "50000 / 10000 / 10000; training images grey, the others binary."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: put the four IDX files of MNIST, plain or gzipped, in this folder."
    )
    SOURCES = SOURCES

    def _info(self) -> tfds.core.DatasetInfo:
        return sources.image_info(self, (28, 28, 1), "http://yann.lecun.com/exdb/mnist/", 10)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        paths = {source: sources.fetch(dl_manager, source) for source in SOURCES}
        images, labels, test, test_labels = (read_idx(path) for path in paths.values())
        for pixels, classes, path in (
            (images, labels, paths[SOURCES[1]]),
            (test, test_labels, paths[SOURCES[3]]),
        ):
            if (
                pixels.shape[1:] != (28, 28)
                or classes.shape != pixels.shape[:1]
                or classes.max(initial=0) > 9
            ):
                raise DataError(
                    f"{shown(path)} and the images beside it must hold [N, 28, 28] pixels and [N] labels from 0 to 9; "
                    f"got {list(pixels.shape)} and {list(classes.shape)}"
                )
        if len(images) <= NUM_VALIDATION:
            raise DataError(
                f"{shown(paths[SOURCES[0]])} must hold more than {NUM_VALIDATION} images; got {len(images)}"
            )
        sources.record(self.info, paths)
        validation, test = binarize(images[-NUM_VALIDATION:], test)
        train = slice(None, -NUM_VALIDATION)
        return {
            "train": self._generate_examples(images[train], labels[train]),
            "validation": self._generate_examples(validation, labels[-NUM_VALIDATION:]),
            "test": self._generate_examples(test, test_labels),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        return sources.examples(images.reshape(-1, 28, 28, 1), labels)


def binarize(validation: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bits (0 or 255) that the paper's code draws for grey images [N, 28, 28], uint8."""
    generator = np.random.RandomState(BINARIZATION_SEED)
    first, second = (
        generator.binomial(1, images.astype(np.float32) / np.float32(255)) for images in (validation, test)
    )
    return 255 * first.astype(np.uint8), 255 * second.astype(np.uint8)


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The array of bytes in an IDX file.

    Raises:
      DataError: the file is no such file.
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
