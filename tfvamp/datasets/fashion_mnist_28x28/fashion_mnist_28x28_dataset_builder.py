"""Fashion-MNIST, grey, from the published IDX files (Xiao, Rasul and Vollgraf 2017)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import idx, sources
from tfvamp.datasets.dynamic_mnist import dynamic_mnist_dataset_builder as dynamic_mnist
from tfvamp.errors import DataError
from tfvamp.files import shown

ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
SOURCES = tuple(
    sources.Source(f"{name}.gz", f"{ADDRESS}/{name}.gz", sha256=sha256)
    for name, sha256 in (
        ("train-images-idx3-ubyte", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1-ubyte", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3-ubyte", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1-ubyte", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    )
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for fashion_mnist_28x28."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "50000 / 10000 / 10000."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: put the four IDX files of Fashion-MNIST, plain or gzipped, in this folder."
    )
    SOURCES = SOURCES

    def _info(self) -> tfds.core.DatasetInfo:
        home = "https://github.com/zalandoresearch/fashion-mnist"
        return sources.image_info(self, (28, 28, 1), home, idx.NUM_CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        paths = {source: sources.fetch(dl_manager, source) for source in SOURCES}
        images, labels, test, test_labels = idx.read_all(list(paths.values()))
        for path, source in zip(paths.values(), dynamic_mnist.SOURCES, strict=True):  # of the same names
            if source.published(path):
                raise DataError(
                    f"{shown(path)} is the file of MNIST, not of Fashion-MNIST: choose --dataset dynamic_mnist, or "
                    "another folder"
                )
        sources.record(self.info, paths)
        train, validation = slice(None, -idx.NUM_VALIDATION), slice(-idx.NUM_VALIDATION, None)
        return {
            "train": self._generate_examples(images[train], labels[train]),
            "validation": self._generate_examples(images[validation], labels[validation]),
            "test": self._generate_examples(test, test_labels),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        return sources.examples(images.reshape(-1, 28, 28, 1), labels)
