"""The contents of a data set, as text and as a picture."""

from __future__ import annotations

import os

import numpy as np

from tfvamp import plots
from tfvamp.catalog import VERIFIED, DatasetSpec
from tfvamp.datasets import BUILDERS, SPLITS, Dataset, builders
from tfvamp.files import expanded, replace_file

CLASSES = 20  # maximum number of classes that are named in a table
SHOWN = 63  # images beside the mean image
BINARIZED = {
    "none": "",
    "threshold": ", pixels of at least a half made 1, the others 0",
    "dynamic": ", training images drawn again in each batch",
}


def is_prepared(spec: DatasetSpec, data_dir: str | os.PathLike | None = None) -> bool:
    """Returns whether the data set can be loaded without its source files.

    Raises:
      DataError: the prepared data are damaged.
    """
    folder = expanded(data_dir) if data_dir else None
    if spec.tfds_name in BUILDERS:
        builder = builders.opened(BUILDERS[spec.tfds_name], folder)
    else:
        builder = builders.registered(spec.tfds_name, folder)
    return builders.folder_of(builder).exists()


def rows(dataset: Dataset) -> dict[str, str]:
    """Returns counts, values and checksums, as text by name."""
    spec, found = dataset.spec, {"what": dataset.spec.title, "source": dataset.spec.source}
    found["shape"] = " x ".join(map(str, spec.shape))
    for split in SPLITS:
        part = getattr(dataset, split)
        found[split] = f"{part.num_examples} images, {_values(part.pixels)}"
    labels, counts = np.unique(
        np.concatenate([getattr(dataset, split).labels for split in SPLITS]), return_counts=True
    )
    if labels.max() >= 0:
        named = [f"{_class(dataset, label)} {count}" for label, count in zip(labels, counts, strict=True)]
        more = f", ... ({len(named)} in all)" if len(named) > CLASSES else ""
        found["classes"] = ", ".join(named[:CLASSES]) + more
    found["likelihood"] = spec.likelihood + BINARIZED[spec.binarization]
    for name, checksum in dataset.checksums.items():
        found[f"sha256 of {name}"] = checksum
    found["verified"] = VERIFIED[dataset.verified]
    return found


def _class(dataset: Dataset, label: int) -> str:
    """Returns the name of a label, for a table of counts."""
    if label < 0:
        return "without a label"
    return dataset.class_names[label] if label < len(dataset.class_names) else f"{label}:"


def _values(pixels: np.ndarray) -> str:
    """Returns the smallest, largest and mean value of pixels [N, H, W, C], in blocks because they may be large."""
    blocks = [pixels[start : start + 20] for start in range(0, len(pixels), 20)]
    low, high = min(block.min() for block in blocks), max(block.max() for block in blocks)
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / pixels.size
    two = all(((block == low) | (block == high)).all() for block in blocks)
    kind = "bytes" if pixels.dtype == np.uint8 else "floats"
    return f"{kind} from {low:g} to {high:g}{' and none between' if two else ''}, mean {mean:.4g}"


def write_picture(dataset: Dataset, path: str | os.PathLike) -> None:
    """Writes a PNG: the mean training image, then images of the training split as they are stored."""
    images = np.stack(list(dataset.train.images.take(SHOWN).as_numpy_iterator()))
    every = dataset.train.images.batch(100).as_numpy_iterator()
    mean = sum(batch.sum(axis=0, dtype=np.float64) for batch in every) / dataset.train.num_examples
    title = f"{dataset.spec.name}: the mean image, then images for training"
    replace_file(expanded(path), plots.grid(np.concatenate([mean[np.newaxis], images]), title))
