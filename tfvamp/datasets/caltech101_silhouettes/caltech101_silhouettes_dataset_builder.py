"""Caltech 101 Silhouettes, 28x28, split 1 (Marlin, Swersky, Chen and de Freitas 2010)."""

from __future__ import annotations

import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import matlab, sources
from tfvamp.errors import DataError
from tfvamp.files import shown

SOURCE = sources.Source(
    filename="caltech101_silhouettes_28_split1.mat",
    url="https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",
    sha256="eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
)
# split -> prefix of its keys in the file; the published counts are 4100, 2264 and 2307.
SPLITS = {"train": "train", "validation": "val", "test": "test"}
NUM_CLASSES = 101
LARGEST_COUNT = 20_000  # images of a split


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for caltech101_silhouettes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "Split 1 of the 28x28 silhouettes."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: put {SOURCE.filename} (from {SOURCE.url}) in this folder."
    SOURCES = (SOURCE,)

    def _info(self) -> tfds.core.DatasetInfo:
        homepage = "https://people.cs.umass.edu/~marlin/data.shtml"
        return sources.image_info(self, (28, 28, 1), homepage, NUM_CLASSES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        path = sources.fetch(dl_manager, SOURCE)
        contents = read_mat(path)
        sources.record(self.info, {SOURCE: path})
        return {split: self._generate_examples(*contents[split]) for split in SPLITS}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        return sources.examples(images, labels)


def read_mat(path: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns images [N, 28, 28, 1] (uint8: shape 255, ground 0) and labels [N] (from 0) of each split.

    The file stores the shape as 0 and the ground as 1, and pixels in Matlab's column order.

    Raises:
      DataError: the file is not such a `.mat` file; the message names the key, and what was
        expected and found.
    """
    keys = tuple(f"{prefix}_{part}" for prefix in SPLITS.values() for part in ("data", "labels"))
    stored = matlab.read(path, keys, SOURCE.url)
    return {
        split: (_images(path, stored, f"{prefix}_data"), _labels(path, stored, prefix))
        for split, prefix in SPLITS.items()
    }


def _images(path: pathlib.Path, stored: dict, key: str) -> np.ndarray:
    pixels = stored[key]
    if pixels.ndim != 2 or pixels.shape[1] != 784 or not 0 < len(pixels) <= LARGEST_COUNT:
        raise DataError(
            f"{shown(path)}: {key} must have shape [N, 784]; got {list(pixels.shape)} (N from 1 to {LARGEST_COUNT})"
        )
    if not np.isin(pixels, (0, 1)).all():
        raise DataError(f"{shown(path)}: {key} must hold only 0 and 1; got values up to {pixels.max()}")
    return (255 * (1 - pixels.astype(np.uint8))).reshape(-1, 28, 28, order="F")[..., np.newaxis]


def _labels(path: pathlib.Path, stored: dict, prefix: str) -> np.ndarray:
    labels = stored[f"{prefix}_labels"].reshape(-1)
    count = len(stored[f"{prefix}_data"])
    if len(labels) != count:
        raise DataError(
            f"{shown(path)}: {prefix}_labels must have [N] = [{count}] entries; got [{len(labels)}]"
        )
    if not np.isin(labels, range(1, NUM_CLASSES + 1)).all():
        raise DataError(
            f"{shown(path)}: {prefix}_labels must be whole numbers from 1 to {NUM_CLASSES}; "
            f"got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int64) - 1
