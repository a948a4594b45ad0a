"""Data sets by name: prepared by TFDS builders, or your own images; checked, split, in [0, 1]."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tfvamp import memory, seeds
from tfvamp.catalog import BINARIZATIONS, CATALOG, OWN, DatasetSpec
from tfvamp.config import BACKGROUNDS, check_dataset
from tfvamp.datasets import builders, own, pipeline, preparation
from tfvamp.datasets.caltech101_silhouettes import caltech101_silhouettes_dataset_builder
from tfvamp.datasets.dynamic_mnist import dynamic_mnist_dataset_builder
from tfvamp.datasets.fashion_mnist_28x28 import fashion_mnist_28x28_dataset_builder
from tfvamp.datasets.frey_faces import frey_faces_dataset_builder
from tfvamp.datasets.histopathology_gray import histopathology_gray_dataset_builder
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder
from tfvamp.datasets.preparation import Prepare
from tfvamp.datasets.splits import SPLITS, SplitName
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder
from tfvamp.errors import DataError, TfvampError, UsageError, check_choice
from tfvamp.files import expanded, printable

PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # the bytes before the width and the height
CACHED = 2**27  # maximum bytes of a split that is kept in memory as images, which take four times as many
KEPT = 2**27  # maximum bytes of the pixels of prepared splits that are kept in memory for the next `load`
Stored = tuple[np.ndarray, np.ndarray]  # pixels and labels of a split
_kept: dict[tuple, Stored] = {}  # by what they were read from; the newest is the last one
BUILDERS: dict[str, Any] = {
    "caltech101_silhouettes": caltech101_silhouettes_dataset_builder.Builder,
    "dynamic_mnist": dynamic_mnist_dataset_builder.Builder,
    "fashion_mnist_28x28": fashion_mnist_28x28_dataset_builder.Builder,
    "frey_faces": frey_faces_dataset_builder.Builder,
    "histopathology_gray": histopathology_gray_dataset_builder.Builder,
    "mnist5k": mnist5k_dataset_builder.Builder,
    "omniglot_28x28": omniglot_28x28_dataset_builder.Builder,
    "static_mnist": static_mnist_dataset_builder.Builder,
}


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
      name: "train", "validation" or "test".
      spec: the description of the data set.
      pixels: [N, H, W, C], bytes or float32, as they are stored; a large array may be a file.
      labels: [N], -1 if there are none.
      binary: whether images are binarised, in the same way at every pass.

    >>> x = np.zeros([10, 8, 8], np.uint8)
    >>> x[:, 2:6] = 255
    >>> images, labels = from_arrays(x[:6], x[6:8], x[8:]).test.array()
    >>> images.shape, labels
    ((2, 8, 8, 1), array([-1, -1]))
    """

    name: str
    spec: DatasetSpec
    pixels: np.ndarray
    labels: np.ndarray
    binary: bool = False

    @property
    def num_examples(self) -> int:
        """The number of images, N."""
        return len(self.pixels)

    @functools.cached_property
    def rows(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A function from indices [B] to stored pixels [B, H, W, C]."""
        return pipeline.rows_of(self.pixels)

    @property
    def images(self) -> tf.data.Dataset:
        """A `tf.data` of images [H, W, C], float32 in [0, 1], in a fixed order.

        Grey training images of a dynamically binarised data set stay grey here.
        """
        blocks = tf.data.Dataset.range(self.num_examples).batch(100)
        at = tf.autograph.experimental.do_not_convert(self.at)
        images = blocks.map(at, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()
        return pipeline.without_tuning(images.cache() if self.pixels.nbytes <= CACHED else images)

    def at(self, indices: tf.Tensor) -> tf.Tensor:
        """Returns the images [B, H, W, C] at some indices [B], in the form of `images`."""
        images = pipeline.to_images(self.rows(indices), self.spec)
        seed = seeds.stateless(0, "binarize", self.spec.name, self.name)
        return pipeline.binarize_each(images, indices, seed) if self.binary else images

    def array(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [N, H, W, C] and labels [N].

        Raises:
          UsageError: there is not enough memory.
        """
        needed = 4 * self.pixels.size
        memory.check(needed, f"{self.spec.name} ({self.name}) as an array", "use `images`, or a limit")
        blocks = [block.numpy() for block in self.images.batch(1000)]
        return np.concatenate(blocks), self.labels


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A loaded data set.

    Attributes:
      spec: the description of the data set.
      train, validation, test: its splits.
      checksums: sha256 of each source file that the data were made from.
      verified: whether these are all the published files; None if no checksum is published.
      class_names: names of the labels 0, 1...; empty if they have no names.

    >>> x = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype(np.uint8)
    >>> data = from_arrays(x[:6], x[6:8], x[8:])
    >>> data.spec.shape, data.spec.likelihood, data.train.num_examples
    ((8, 8, 1), 'logistic', 6)
    """

    spec: DatasetSpec
    train: Split
    validation: Split
    test: Split
    checksums: dict[str, str]
    verified: bool | None
    class_names: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """Returns the split of that name as it is evaluated: grey training images are binarised once."""
        check_choice("split", name, SPLITS)
        part: Split = getattr(self, name)
        return dataclasses.replace(part, binary=self.spec.binarization == "dynamic")

    def training_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        first_step: int = 0,
        with_index: bool = False,
        epochs: int = 1,
    ) -> tf.data.Dataset:
        """Returns the training batches [B, H, W, C] of epochs (from 1), shuffled and binarised with the seed.

        The first `first_step` batches of the first epoch are left out; `with_index` is as in
        `pipeline.training_batches`.
        """
        rows, count = self.train.rows, self.train.num_examples
        return pipeline.training_batches(
            rows, count, self.spec, batch_size, seed, epoch, first_step, with_index, epochs
        )


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    image_size: str | None = None,
    grayscale: bool = False,
    colour: bool = False,
    background: str = "white",
    binarize: str | None = None,
    progress: bool = False,
    prepare: Prepare = "replace",
    known: Iterable[str] = (),
) -> Dataset:
    """Prepares (once) and loads a data set.

    Args:
      name: a short name of `CATALOG`, such as "caltech101"; or your own images:
        "npz:FILE", "folder:DIR" or "tfds:NAME[/CONFIG][:IMAGE_KEY]".
      data_dir: folder of prepared data; None for TFDS's own default.
      raw_dir: a folder with source files fetched by hand, used instead of a download; None takes
        the environment variable TFVAMP_RAW_DIR. It is not used for your own images, nor for TFDS's
        own data sets.
      limit: maximum number of examples of each split, for a quick look.
      say: a function that gets one line of text when data are prepared.
      image_size: "HxW" to which your own images are resized; needed for "folder:".
      grayscale: whether to make your own images grey.
      colour: whether to read a folder's images in colour. With neither option, they are grey if all
        files are.
      background: what a folder's transparent images are laid over, "white" or "black".
      binarize: binarisation of your own images: "none", "threshold" (at 0.5) or "dynamic".
      progress: whether to show bars on the standard error stream while data are downloaded and
        prepared.
      prepare: "replace" prepares data that are missing, and prepares data again if the files in
        `raw_dir` differ from those that they were made from. "missing" prepares missing data, but
        never changes prepared ones. "never" downloads and writes nothing.
      known: checksums of the pixels of a folder of images. If the folder is gone but its images are
        prepared, the prepared ones are used.

    Raises:
      UsageError: the name is unknown, an option does not apply to it, the limit is below 1, or
        there is not enough memory.
      DataError: the data are not available or must not be prepared, are damaged, or have values
        that do not fit.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1; got {limit}")
    check_choice("way to prepare", prepare, preparation.PREPARE)
    if not name.startswith(OWN):
        check_dataset(name)
    if raw_dir is not None and (name.startswith(OWN) or CATALOG[name].tfds_name not in BUILDERS):
        raise UsageError(f"--raw-dir does not go with {name}, which has no source files of its own")
    spec = CATALOG.get(name)
    if spec is not None and (image_size or grayscale or colour or binarize):
        raise UsageError(
            f"--image-size, --grayscale, --colour and --binarize go with your own images, not with {name}"
        )
    if grayscale and colour:
        raise UsageError("--grayscale and --colour exclude each other")
    check_choice("background", background, BACKGROUNDS)
    raw_dir = _expanded(raw_dir)
    options = {"image_size": image_size, "grayscale": grayscale, "colour": colour, "raw_dir": raw_dir}
    options["background"] = None if background == "white" else background
    how = preparation.Preparation(name, _expanded(data_dir), prepare, say, progress, options)
    if spec is None:
        if known and (images := own.read_kept(name, how, known, binarize)) is not None:
            say(f"{printable(name)} is gone: its images are taken as they were prepared")
            return _own(images, limit)
        return _own(own.read(name, how, image_size, grayscale, colour, background, binarize), limit)
    if spec.tfds_name not in BUILDERS:
        return _own(own.read_tfds(spec, spec.tfds_name, how), limit)
    builder = preparation.prepare(BUILDERS[spec.tfds_name], raw_dir, how)
    splits: dict[str, Any] = {split: _read(builder, spec, split, limit) for split in SPLITS}
    checksums, verified = builders.recorded(builder.info), builders.verified(builder.info)
    return Dataset(spec=spec, checksums=checksums, verified=verified, **splits)


def from_arrays(
    train: np.ndarray,
    validation: np.ndarray,
    test: np.ndarray,
    binarize: str | None = None,
    name: str = "arrays",
) -> Dataset:
    """Returns a data set made of your own arrays [N, H, W] or [N, H, W, C]: bytes, or floats in [0, 1].

    Args:
      train, validation, test: the images.
      binarize: "none", "threshold" or "dynamic"; None for "none".
      name: name of the data set, on which the seeds of binarisation depend.

    Raises:
      DataError: the shapes differ, or pixels are not numbers in [0, 1].
    """
    arrays = {"train": train, "validation": validation, "test": test}
    return _own(own.from_arrays(name, arrays, binarize), None)


def _own(data: own.OwnData, limit: int | None) -> Dataset:
    """Returns a data set made of what `own` read."""
    splits: dict[str, Split] = {}
    for split in SPLITS:
        pixels = data.pixels[split][:limit]
        binary = data.spec.binarization == "dynamic" and split != "train"
        labels = np.full(len(pixels), -1) if data.labels is None else data.labels[split][:limit]
        splits[split] = Split(split, data.spec, pixels, labels, binary)
    return Dataset(
        spec=data.spec,
        checksums=data.checksums,
        verified=data.verified,
        class_names=data.class_names,
        **splits,
    )


def _expanded(path: str | os.PathLike | None) -> str | None:
    """Returns a folder with `~` replaced by the home folder; None if none is given."""
    if path is None or not os.fspath(path):
        return None
    if "\0" in os.fspath(path):
        raise UsageError("a path must not contain a null byte")
    return str(expanded(path))


def _read(builder: tfds.core.DatasetBuilder, spec: DatasetSpec, split: SplitName, limit: int | None) -> Split:
    """Returns a split of a prepared data set; the pixels of those read last are kept in memory."""
    try:
        files = [(path.name, path.stat()) for path in sorted(pathlib.Path(builder.data_path).iterdir())]
        stamps = tuple((name, found.st_size, found.st_mtime_ns, found.st_ino) for name, found in files)
        key = (spec, split, limit, str(builder.data_path), stamps)
        if key in _kept:
            _kept[key] = pixels, labels = _kept.pop(key)  # to the end, as the newest
            return Split(split, spec, pixels, labels, spec.binarization == "dynamic" and split != "train")
        stored = builder.info.splits[split]
        if any(path.parent != builder.data_path for path in stored.filepaths):
            raise ValueError("files elsewhere")
        count = stored.num_examples
        count = count if limit is None else min(limit, count)
        memory.check(4 * count * math.prod(spec.shape), f"{spec.name} ({split})", "use --limit")
        examples = builder.as_dataset(split=split, decoders={"image": _decode()}, shuffle_files=False)
        batch = next(iter(examples.batch(count)))
        pixels = batch["image"].numpy()
        labels = batch["label"].numpy() if "label" in batch else np.full(len(pixels), -1)
        if len(pixels) != count:
            raise ValueError("fewer images than it says")
    except TfvampError:
        raise
    except Exception as error:  # damaged files may lead to any error
        raise builders.damaged(builder.data_dir, error) from error
    part = Split(split, spec, pixels, labels, spec.binarization == "dynamic" and split != "train")
    _check_values(part)
    _keep(key, pixels, labels)
    return part


def _keep(key: tuple, pixels: np.ndarray, labels: np.ndarray) -> None:
    """Keeps what was read of a split, unless it is larger than `KEPT` bytes; drops the oldest ones beyond that."""
    for values in (pixels, labels):
        values.flags.writeable = False
    if pixels.nbytes > KEPT:
        return
    _kept[key] = pixels, labels
    while sum(kept.nbytes for kept, _ in _kept.values()) > KEPT:
        _kept.pop(next(iter(_kept)))


@tfds.decode.make_decoder()
def _decode(example: tf.Tensor, feature: tfds.features.Image) -> tf.Tensor:
    """Returns a stored image; it is unpacked only if it is a PNG file of the size that the builder states."""
    height, width, _ = feature.shape
    expected = PNG_HEADER + struct.pack(">II", width, height)
    tf.debugging.Assert(tf.strings.substr(example, 0, len(expected)) == expected, ["another kind of image"])
    return feature.decode_example(example)


def _check_values(part: Split) -> None:
    """Raises DataError unless the images have the shape and the values that the spec promises."""
    spec = part.spec
    if part.pixels.shape[1:] != spec.shape:
        raise DataError(
            f"{spec.name}: images must have shape [H, W, C] = {list(spec.shape)}; got {list(part.pixels.shape[1:])}"
        )
    binary = spec.likelihood.startswith("bernoulli") and spec.binarization == "none"
    blocks = np.array_split(part.pixels, max(1, len(part.pixels) // 1000))
    values = np.unique(np.concatenate([np.unique(block) for block in blocks]))
    images = pipeline.to_images(tf.constant(values), spec).numpy()
    own.check_pixels(images, f"{spec.name} ({part.name})", binary)


check_pixels, absolute = own.check_pixels, own.absolute

__all__ = [
    "BINARIZATIONS",
    "BUILDERS",
    "CATALOG",
    "OWN",
    "SPLITS",
    "Dataset",
    "DatasetSpec",
    "Prepare",
    "Split",
    "SplitName",
    "absolute",
    "check_pixels",
    "from_arrays",
    "load",
]
