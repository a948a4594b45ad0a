"""Data sets by name: prepared by TFDS builders, checked, split, in [0, 1]."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfvamp.datasets import pipeline, sources
from tfvamp.datasets.caltech101_silhouettes import caltech101_silhouettes_dataset_builder
from tfvamp.datasets.catalog import CATALOG, DatasetSpec
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder
from tfvamp.errors import DataError, UsageError, check_choice

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
_BUILDERS: dict[str, Any] = {
    "caltech101_silhouettes": caltech101_silhouettes_dataset_builder.Builder,
    "mnist5k": mnist5k_dataset_builder.Builder,
}


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
      examples: `tf.data` of {"image": [H, W, C] float32 in [0, 1], "label": ()}, cached, in a
        fixed order. Grey training images of a dynamically binarised set stay grey here.
      num_examples: how many there are.
    """

    examples: tf.data.Dataset
    num_examples: int

    @property
    def images(self) -> tf.data.Dataset:
        """The images alone."""
        return self.examples.map(lambda example: example["image"])

    def array(self) -> tuple[np.ndarray, np.ndarray]:
        """Images [N, H, W, C] and labels [N]."""
        batch = next(iter(self.examples.batch(self.num_examples)))
        return batch["image"].numpy(), batch["label"].numpy()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
      spec: what it is.
      train, validation, test: its splits.
      checksums: sha256 of each source file that the data were made from.
      verified: whether they are all the published ones.
    """

    spec: DatasetSpec
    train: Split
    validation: Split
    test: Split
    checksums: dict[str, str]
    verified: bool

    def split(self, name: str) -> Split:
        """The split of that name as it is evaluated: grey training images binarised once."""
        check_choice("split", name, SPLITS)
        part: Split = getattr(self, name)
        if name == "train" and self.spec.binarization == "dynamic":
            return Split(pipeline.binarize_once(part.examples, self.spec.name, name), part.num_examples)
        return part

    def training_batches(self, batch_size: int, seed: int, epoch: int) -> tf.data.Dataset:
        """The training batches [B, H, W, C] of one epoch (from 1), shuffled and binarised by the seed."""
        dynamic = self.spec.binarization == "dynamic"
        return pipeline.training_batches(self._training_images, batch_size, seed, epoch, dynamic)

    @functools.cached_property
    def _training_images(self) -> tf.Tensor:
        return tf.constant(self.train.array()[0])


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Prepares (once) and loads a data set.

    Args:
      name: a short name of `CATALOG`, such as "caltech101".
      data_dir: where TFDS keeps prepared data; None for TFDS's own default.
      raw_dir: a folder with source files fetched by hand, used instead of a download; None
        takes the environment variable TFVAMP_RAW_DIR.
      limit: at most this many examples of each split, for a quick look.
      say: told in one line when data are prepared.

    Raises:
      UsageError: the name is unknown, or the limit below 1.
      DataError: the data cannot be had, are damaged, or have values that do not fit.
    """
    check_choice("data set", name, CATALOG)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1; got {limit}")
    spec = CATALOG[name]
    builder_class = _BUILDERS[spec.tfds_name]
    builder = sources.prepare(builder_class, _as_text(data_dir), sources.raw_dir(raw_dir), say)
    checksums = sources.recorded(builder.info)
    verified = all(checksums.get(s.filename) == s.sha256 for s in builder_class.SOURCES)
    splits = {split: _read(builder, spec, split, limit) for split in SPLITS}
    return Dataset(spec=spec, checksums=checksums, verified=verified, **splits)


def _as_text(path: str | os.PathLike | None) -> str | None:
    return None if path is None else os.path.expanduser(os.fspath(path))


def _read(builder: tfds.core.DatasetBuilder, spec: DatasetSpec, split: SplitName, limit: int | None) -> Split:
    try:
        examples = builder.as_dataset(split=split, shuffle_files=False)
        count = builder.info.splits[split].num_examples
        examples = examples.take(count if limit is None else min(limit, count)).map(_scale)
        if spec.binarization == "dynamic" and split != "train":
            examples = pipeline.binarize_once(examples, spec.name, split)
        examples = examples.cache()
        _check_values(examples, spec, split)  # fills the cache, too
    except (tf.errors.OpError, KeyError) as error:
        raise DataError(
            f"the prepared data in {builder.data_dir} are damaged ({type(error).__name__}): "
            "delete that folder and run the command again"
        ) from error
    return Split(examples, int(examples.cardinality()))


def _scale(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"image": tf.cast(example["image"], tf.float32) / 255.0, "label": example["label"]}


def _check_values(examples: tf.data.Dataset, spec: DatasetSpec, split: str) -> None:
    """Raises DataError unless the images have the shape and the values that the spec promises."""
    binary = spec.binarization == "none" or split != "train"
    for batch in examples.batch(1000):
        images = batch["image"].numpy()
        if images.shape[1:] != spec.shape:
            raise DataError(
                f"{spec.name}: images must have shape [H, W, C] = {list(spec.shape)}; got {list(images.shape[1:])}"
            )
        check_pixels(
            images, f"{spec.name} ({split})", binary=binary and spec.likelihood.startswith("bernoulli")
        )


def check_pixels(images: np.ndarray, what: str, binary: bool) -> None:
    """Raises DataError for pixels that are no numbers in [0, 1], or not 0 and 1 where `binary`."""
    if not np.isfinite(images).all():
        raise DataError(f"{what}: pixels must be finite; got NaN or infinity")
    if images.min() < 0.0 or images.max() > 1.0:
        raise DataError(f"{what}: pixels must lie in [0, 1]; got {images.min():g} to {images.max():g}")
    if binary and not np.isin(images, (0.0, 1.0)).all():
        value = images[(images != 0.0) & (images != 1.0)][0]
        raise DataError(
            f"{what}: a Bernoulli likelihood needs pixels that are 0 or 1; got {value:g} (binarise the images first)"
        )
