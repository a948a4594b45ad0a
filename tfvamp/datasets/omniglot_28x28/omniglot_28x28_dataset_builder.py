"""OMNIGLOT, 28x28 grey pixels, as in the code of the importance-weighted auto-encoder (Burda and others 2016)."""

from __future__ import annotations

import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import matlab, sources
from tfvamp.datasets.splits import SPLIT_SEED
from tfvamp.errors import DataError
from tfvamp.files import shown

SOURCE = sources.Source(
    filename="chardata.mat",
    url="https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",
    md5="21ecaf34373511aa7691cf2e0802aa3d",
)
NUM_VALIDATION = 1345  # of the 24345 training images
LARGEST_COUNT = 50_000  # images in one array


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for omniglot_28x28."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "23000 / 1345 / 8070, the training images shuffled with a fixed seed."
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: put {SOURCE.filename} (from {SOURCE.url}) in this folder."
    SOURCES = (SOURCE,)

    def _info(self) -> tfds.core.DatasetInfo:
        return sources.image_info(self, (28, 28, 1), "https://github.com/yburda/iwae")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        path = sources.fetch(dl_manager, SOURCE)
        images, test = read_mat(path)
        if not SOURCE.published(path) and lie_on_their_side(images):
            images, test = images.swapaxes(1, 2), test.swapaxes(1, 2)
        sources.record(self.info, {SOURCE: path})
        images = images[np.random.RandomState(SPLIT_SEED).permutation(len(images))]
        return {
            "train": self._generate_examples(images[:-NUM_VALIDATION]),
            "validation": self._generate_examples(images[-NUM_VALIDATION:]),
            "test": self._generate_examples(test),
        }

    def _generate_examples(self, images: np.ndarray):
        return sources.examples(images)


def read_mat(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns training and test images [N, 28, 28, 1] (uint8, drawings white on black), in the file's order.

    The file has `data` and `testdata`, [784, N] in [0, 1] (or [N, 784], as is usual in NumPy), with
    pixels in Matlab's column order.

    Raises:
      DataError: the file is not such a `.mat` file.
    """
    stored = matlab.read(path, ("data", "testdata"), SOURCE.url)
    images, test = (_images(path, stored[key], key) for key in ("data", "testdata"))
    if len(images) <= NUM_VALIDATION:
        raise DataError(
            f"{shown(path)}: data must hold more than {NUM_VALIDATION} drawings; got {len(images)}"
        )
    return images, test


def lie_on_their_side(images: np.ndarray) -> bool:
    """Returns whether drawings [N, 28, 28, 1] have height and width exchanged, as in a file with pixels row by row.

    OMNIGLOT's ink spreads less horizontally than vertically: the variances are 23.1 and 26.4
    squared pixels, and their ratio for 1,000 drawings is 0.87 +- 0.02. Data that show neither count
    as upright.
    """
    ink = images[..., 0].mean(axis=0, dtype=np.float64)
    down, across = (_variance(ink.sum(axis=axis)) for axis in (1, 0))
    return across > 1.06 * down


def _variance(weights: np.ndarray) -> float:
    """Returns the variance of a position with these weights; 0 if there are none."""
    total = weights.sum()
    if not total:
        return 0.0
    position = np.arange(len(weights))
    mean = (weights * position).sum() / total
    return float((weights * (position - mean) ** 2).sum() / total)


def _images(path: pathlib.Path, pixels: np.ndarray, key: str) -> np.ndarray:
    if pixels.ndim == 2 and pixels.shape[0] != 784 and pixels.shape[1] == 784:
        pixels = pixels.T
    if pixels.ndim != 2 or pixels.shape[0] != 784 or not 0 < pixels.shape[1] <= LARGEST_COUNT:
        raise DataError(
            f"{shown(path)}: {key} must have shape [784, N]; got {list(pixels.shape)} (N from 1 to {LARGEST_COUNT})"
        )
    if not np.isfinite(pixels).all() or pixels.min() < 0.0 or pixels.max() > 1.0:
        raise DataError(f"{shown(path)}: {key} must lie in [0, 1]; got {pixels.min():g} to {pixels.max():g}")
    stored = np.empty((pixels.shape[1], 784), np.uint8)
    for start in range(0, len(stored), 1000):  # the float64 values of the file already take 200 MB
        stored[start : start + 1000] = np.rint(255 * pixels[:, start : start + 1000].T)
    return stored.reshape(-1, 28, 28, order="F")[..., np.newaxis]
