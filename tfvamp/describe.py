"""What a data set holds, in words and in a picture."""

from __future__ import annotations

import functools
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from tfvamp import plots
from tfvamp.datasets import BUILDERS, SPLITS, Dataset
from tfvamp.datasets.catalog import DatasetSpec
from tfvamp.training.run_folder import replace_file

SHOWN = 63  # images beside the mean image
BINARIZED = {
    "none": "",
    "threshold": ", pixels of at least a half made 1, the others 0",
    "dynamic": ", training images drawn anew in each batch",
}


def is_prepared(spec: DatasetSpec, data_dir: str | os.PathLike | None = None) -> bool:
    """Whether the data set can be loaded without its source files."""
    folder = None if data_dir is None else os.path.expanduser(os.fspath(data_dir))
    if spec.tfds_name in BUILDERS:
        return BUILDERS[spec.tfds_name](data_dir=folder).data_path.exists()
    return tfds.builder(spec.tfds_name, data_dir=folder).data_path.exists()


def rows(dataset: Dataset) -> dict[str, str]:
    """Counts, values, checksums."""
    spec, found = dataset.spec, {"what": dataset.spec.title, "source": dataset.spec.source}
    found["shape"] = " x ".join(map(str, spec.shape))
    for split in SPLITS:
        part = getattr(dataset, split)
        first = part.pixels[: min(len(part.pixels), 10_000)]
        blocks = [first[start : start + 20] for start in range(0, len(first), 20)]  # images may be large
        values = functools.reduce(np.union1d, map(np.unique, blocks))
        mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / first.size
        kind = "bytes" if first.dtype == np.uint8 else "floats"
        held = " and ".join(map(str, values)) if len(values) < 3 else f"{len(values)} values"
        found[split] = (
            f"{part.num_examples} images, {kind} from {values[0]:g} to {values[-1]:g} ({held}), mean {mean:.4g}"
        )
    found["likelihood"] = spec.likelihood + BINARIZED[spec.binarization]
    for name, checksum in dataset.checksums.items():
        found[f"sha256 of {name}"] = checksum
    found["verified"] = {
        True: "yes",
        False: "no, not known to be the published files",
        None: "your own images",
    }[dataset.verified]
    return found


def write_picture(dataset: Dataset, path: str | os.PathLike) -> None:
    """A PNG: the mean training image, then images of the training split as they are stored."""
    images = np.stack(list(dataset.train.images.take(SHOWN).as_numpy_iterator()))
    every = dataset.train.images.take(10_000).batch(500).as_numpy_iterator()
    sums = [(batch.sum(axis=0), len(batch)) for batch in every]
    mean = np.sum([total for total, _ in sums], axis=0) / sum(count for _, count in sums)
    title = f"{dataset.spec.name}: the mean image, then images for training"
    replace_file(pathlib.Path(path), plots.grid(np.concatenate([mean[np.newaxis], images]), title))
