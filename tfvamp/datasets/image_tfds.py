"""Images of one size from any data set of images in TFDS."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from tfvamp.datasets import builders, image_store
from tfvamp.datasets.builders import folder_of
from tfvamp.datasets.image_folder import files_under, resized
from tfvamp.datasets.preparation import Preparation, make, unwritable
from tfvamp.datasets.splits import SHARE, SPLITS
from tfvamp.errors import DataError, TfvampError, UsageError
from tfvamp.files import reason, shown


def of_tfds(
    name: str,
    image_key: str,
    size: tuple[int, int] | None,
    grayscale: bool,
    preparation: Preparation,
    num_validation: int | None = None,
) -> image_store.Store:
    """Returns the images of any data set of TFDS, resized to one size if one is given.

    Its splits train, validation and test are used as they are. If validation or test is missing,
    the last images of train are used: one in ten, or `num_validation`.

    Raises:
      UsageError: TFDS has no such data set, or the data set has no such image.
      DataError: it cannot be prepared, or must not be prepared, or its images differ in size and no
        size is given.
    """
    builder = builders.registered(name, preparation.data_dir)
    shape = _shape(builder, name, image_key, size, grayscale)
    preparation.sweep(folder_of(builder).parent)
    if not os.path.exists(folder_of(builder)):
        _prepare(builder, name, preparation)
        builder = builders.registered(name, preparation.data_dir)
    prepared = folder_of(builder)
    splits = _splits(builder, num_validation)

    label = dict((builder.info.features or {}).items()).get("label")
    class_names = (label.names or []) if isinstance(label, tfds.features.ClassLabel) else []
    labelled = label is not None and label.shape == () and tf.as_dtype(label.dtype).is_integer

    def images() -> Iterator[tuple[str, np.ndarray, int]]:
        for split, (source, start, stop) in splits.items():
            try:
                examples = builder.as_dataset(split=f"{source}[{start}:{stop}]", shuffle_files=False)
                for example in tfds.as_numpy(examples):
                    image = resized(_to_bytes(example[image_key], name), shape[:2], shape[2])
                    yield split, image, int(example["label"]) if labelled else -1
            except TfvampError:
                raise
            except Exception as error:  # damaged files may lead to any error
                raise builders.damaged(prepared, error) from error

    count = sum(stop - start for _, start, stop in splits.values())
    listing = image_store.listing(files_under(prepared), prepared)
    key = image_store.key_of(
        "tfds with labels", str(prepared), listing, image_key, shape[:2], shape[2], splits
    )
    return image_store.kept(key, images(), count, lambda: shape, preparation, name, [], class_names)


def _shape(
    builder: tfds.core.DatasetBuilder,
    name: str,
    image_key: str,
    size: tuple[int, int] | None,
    grayscale: bool,
) -> tuple[int, int, int]:
    """Returns (H, W, C) of the images as they are kept."""
    features = dict((builder.info.features or {}).items())
    feature = features.get(image_key)
    if not isinstance(feature, tfds.features.Image):
        found = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
        raise UsageError(
            f"{name} has no image {image_key!r}; it has: {', '.join(found) or 'no image at all'}"
        )
    height, width, channels = feature.shape
    if size is None and (height is None or width is None):
        raise UsageError(f"the images of {name} differ in size: choose one with --image-size HxW")
    return (*(size or (height, width)), 1 if grayscale else channels or 3)


def _prepare(builder: tfds.core.DatasetBuilder, name: str, preparation: Preparation) -> None:
    folder = folder_of(builder)
    preparation.check(folder)
    preparation.say(f"preparing {builder.name} in {shown(folder)}")
    try:
        make(builder, tfds.download.DownloadConfig(try_download_gcs=False), preparation.progress)
    except TfvampError:
        raise
    except Exception as error:  # anything that the builder, the network or the disk raises
        if os.path.exists(folder):  # another process was faster
            return
        if isinstance(error, requests.RequestException | tfds.download.DownloadError):
            raise DataError(
                f"cannot download {name} ({type(error).__name__}): check the network, or copy "
                f"{shown(folder)} from a machine where TFDS has prepared it"
            ) from error
        if isinstance(error, OSError) or isinstance(error.__cause__, tf.errors.OpError):  # wrapped by TFDS
            raise unwritable(name, folder, error) from error
        raise DataError(
            f"cannot prepare {name} in {shown(folder)} ({type(error).__name__}: {reason(error)})"
        ) from error


def _splits(builder: tfds.core.DatasetBuilder, num_validation: int | None) -> dict[str, tuple[str, int, int]]:
    """Returns a mapping from split to (split in TFDS, first, last + 1)."""
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    if "train" not in counts:
        raise DataError(f"{builder.name} has no split train; it has: {', '.join(counts)}")
    splits, end = {}, counts["train"]
    part = num_validation or max(1, end // SHARE)
    for split in ("test", "validation"):
        if split in counts:
            splits[split] = (split, 0, counts[split])
        else:
            splits[split] = ("train", end - part, end)
            end -= part
    if end < 1 or min(stop - start for _, start, stop in splits.values()) < 1:
        raise DataError(f"{builder.name} has {counts['train']} training images: too few for three splits")
    splits["train"] = ("train", 0, end)
    return {split: splits[split] for split in SPLITS}


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise DataError(f"the images of {name} have dtype {array.dtype}: only bytes are read")
    return array
