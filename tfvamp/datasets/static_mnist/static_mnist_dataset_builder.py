"""Static MNIST: the digits binarised once by Hugo Larochelle (Salakhutdinov and Murray 2008)."""

from __future__ import annotations

import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import sources
from tfvamp.errors import DataError
from tfvamp.files import shown

ADDRESS = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
FILES = {
    split: sources.Source(f"binarized_mnist_{name}.amat", f"{ADDRESS}/binarized_mnist_{name}.amat", sha256)
    for split, name, sha256 in (
        ("train", "train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
        ("validation", "valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
        ("test", "test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
    )
}
LARGEST_TEXT = 96 * 2**20  # bytes; the published training file has 78 million
LARGEST_COUNT = 100_000  # lines


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for static_mnist."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "50000 / 10000 / 10000 as published."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Optional: put the three binarized_mnist_*.amat files, or *.amat.gz, in this folder."
    )
    SOURCES = tuple(FILES.values())

    def _info(self) -> tfds.core.DatasetInfo:
        return sources.image_info(self, (28, 28, 1), f"{ADDRESS}/")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        paths = {split: sources.fetch(dl_manager, source) for split, source in FILES.items()}
        images = {split: read_amat(path) for split, path in paths.items()}
        sources.record(self.info, {source: paths[split] for split, source in FILES.items()})
        return {split: self._generate_examples(images[split]) for split in FILES}

    def _generate_examples(self, images: np.ndarray):
        return sources.examples(images)


def read_amat(path: pathlib.Path) -> np.ndarray:
    """Returns images [N, 28, 28, 1] (uint8, 0 or 255) of lines of 784 digits, 0 or 1, between spaces.

    Raises:
      DataError: the file is not such a text file.
    """
    text = np.frombuffer(sources.read_bytes(path, LARGEST_TEXT).rstrip(), np.uint8)
    text = text[(text != ord(" ")) & (text != ord("\r")) & (text != ord("\t"))]
    ends = text == ord("\n")
    digits = text[~ends] - ord("0")
    if not len(digits) or np.count_nonzero(ends) > LARGEST_COUNT:
        raise DataError(
            f"{shown(path)} must hold lines of 784 digits, 0 or 1; got no such line, or more than {LARGEST_COUNT}: fetch it again"
        )
    # The number of digits before each end of a line, and in total.
    before = np.append(np.flatnonzero(ends) - np.arange(np.count_nonzero(ends)), len(digits))
    lengths = np.diff(before, prepend=0)
    if (lengths != 784).any():
        line = int(np.argmax(lengths != 784))
        raise DataError(
            f"{shown(path)} must hold lines of 784 digits, 0 or 1; got {lengths[line]} in line {line + 1}: fetch it again"
        )
    if digits.max() > 1:
        raise DataError(f"{shown(path)} must hold only 0 and 1: fetch it again")
    return (255 * digits).reshape(-1, 28, 28, 1)
