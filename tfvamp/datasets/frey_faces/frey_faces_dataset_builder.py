"""Frey Faces: 1965 frames of one face, 28x20 grey pixels, from a film by Brendan Frey."""

from __future__ import annotations

import hashlib
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import matlab, safe_pickle, sources
from tfvamp.datasets.splits import SPLIT_SEED
from tfvamp.errors import DataError
from tfvamp.files import shown

PICKLE = sources.Source(
    filename="freyfaces.pkl",
    url="https://github.com/y0ast/Variational-Autoencoder/raw/master/freyfaces.pkl",
    sha256="3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a",
)
MAT = sources.Source(
    filename="frey_rawface.mat",  # the same pixels without a pickle
    url="https://cs.nyu.edu/~roweis/data/frey_rawface.mat",
)
PIXELS_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # of the pixels [1965, 28, 20] in the published order
COUNTS = {"train": 1565, "validation": 200, "test": 200}
LARGEST_COUNT = 20_000  # faces


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for frey_faces."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "1565 / 200 / 200 after a shuffle with a fixed seed."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: put {PICKLE.filename} or {MAT.filename} in this folder."
    SOURCES = (PICKLE, MAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return sources.image_info(self, (28, 20, 1), "https://cs.nyu.edu/~roweis/data.html")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        source, path = sources.fetch_either(dl_manager, PICKLE, MAT)
        images = read_pickle(path) if source is PICKLE else read_mat(path)
        published = hashlib.sha256(images.tobytes()).hexdigest() == PIXELS_SHA256
        sources.record(self.info, {source: path}, verified=published)
        order = np.random.RandomState(SPLIT_SEED).permutation(len(images))
        test = len(images) - COUNTS["test"]
        train = test - COUNTS["validation"]
        rows = {"train": order[:train], "validation": order[train:test], "test": order[test:]}
        return {split: self._generate_examples(images[chosen]) for split, chosen in rows.items()}

    def _generate_examples(self, images: np.ndarray):
        return sources.examples(images)


def read_pickle(path: pathlib.Path) -> np.ndarray:
    """Returns images [N, 28, 20, 1] (uint8) of a pickled list of one array [N, 560], read without running the pickle.

    Raises:
      DataError: the file is not such a pickle.
    """
    try:
        stored = safe_pickle.loads(sources.read_bytes(path, safe_pickle.LARGEST_PICKLE))
    except safe_pickle.UnsafePickleError as error:
        raise DataError(f"{shown(path)} is not read: {error}; fetch it again from {PICKLE.url}") from error
    if isinstance(stored, list) and len(stored) == 1:
        stored = stored[0]
    return _images(path, stored)


def read_mat(path: pathlib.Path) -> np.ndarray:
    """Returns images [N, 28, 20, 1] (uint8) of a Matlab file with `ff` [560, N].

    Raises:
      DataError: the file is not such a `.mat` file.
    """
    stored = matlab.read(path, ("ff",), MAT.url)
    return _images(path, stored["ff"].T)


def _images(path: pathlib.Path, pixels) -> np.ndarray:
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 560:
        found = list(pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{shown(path)} must hold pixels of shape [N, 560]; got {found}")
    if len(pixels) <= COUNTS["validation"] + COUNTS["test"]:
        raise DataError(
            f"{shown(path)} must hold more than 400 faces, which validation and test take; got {len(pixels)}"
        )
    if len(pixels) > LARGEST_COUNT:
        raise DataError(f"{shown(path)} must hold at most {LARGEST_COUNT} faces; got {len(pixels)}")
    if (
        not np.isfinite(pixels).all()
        or pixels.min() < 0
        or pixels.max() > 255
        or (pixels != np.floor(pixels)).any()
    ):
        raise DataError(
            f"{shown(path)} must hold whole numbers from 0 to 255; got {pixels.min()} to {pixels.max()}"
        )
    return pixels.astype(np.uint8).reshape(-1, 28, 20, 1)
