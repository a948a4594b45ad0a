"""Dynamic MNIST: grey training digits; validation and test are binarised once, with exactly the paper's bits."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import idx, sources
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
        return sources.image_info(self, (28, 28, 1), "http://yann.lecun.com/exdb/mnist/", idx.NUM_CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        paths = {source: sources.fetch(dl_manager, source) for source in SOURCES}
        images, labels, test, test_labels = idx.read_all(list(paths.values()))
        if len(labels) == 60_000 and set(np.bincount(labels)) == {6000}:
            raise DataError(
                f"{shown(paths[SOURCES[1]])} has 6000 images of each class, as Fashion-MNIST and KMNIST do, and not MNIST: "
                "choose --dataset fashion_mnist, or another folder"
            )
        sources.record(self.info, paths)
        validation, test = binarize(images[-idx.NUM_VALIDATION :], test)
        train = slice(None, -idx.NUM_VALIDATION)
        return {
            "train": self._generate_examples(images[train], labels[train]),
            "validation": self._generate_examples(validation, labels[-idx.NUM_VALIDATION :]),
            "test": self._generate_examples(test, test_labels),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        return sources.examples(images.reshape(-1, 28, 28, 1), labels)


def binarize(validation: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bits (0 or 255) that the paper's code draws for grey images [N, 28, 28], uint8."""
    generator = np.random.RandomState(BINARIZATION_SEED)
    first, second = (
        generator.binomial(1, images.astype(np.float32) / np.float32(255)) for images in (validation, test)
    )
    return 255 * first.astype(np.uint8), 255 * second.astype(np.uint8)
