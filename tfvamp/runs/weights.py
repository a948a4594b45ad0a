"""The best weights of a run: one Keras `.weights.h5` file, which records their epoch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfvamp.errors import FileError, RunError
from tfvamp.files import read_bytes, shown

EPOCH = "tfvamp_epoch"  # attribute of the file
MARGIN = 2**20  # bytes allowed for a file besides its arrays
MARGIN_PER_ARRAY = 2**13


class Stored(NamedTuple):
    """Weights as they are in a file.

    Attributes:
      contents: the bytes of the file.
      epoch: the epoch after which they were saved; None if the file does not say.
    """

    contents: bytes
    epoch: int | None

    @property
    def sha256(self) -> str:
        """The checksum of the file."""
        return hashlib.sha256(self.contents).hexdigest()


class _MemoryFile(io.BytesIO):
    """A file in memory that Keras takes for one on disk, so that a full disk cannot stop h5py half-way."""

    def __str__(self):
        return "model.weights.h5"


def to_bytes(model: keras.Model, epoch: int) -> bytes:
    """Returns the contents of a weights file."""
    file = _MemoryFile()
    with _without_optimizer(model):
        model.save_weights(file)
    with h5py.File(file, "r+") as stored:
        stored.attrs[EPOCH] = epoch
    return file.getvalue()


def largest(variables: Sequence) -> int:
    """Returns the maximum number of bytes of a file with these weights."""
    return 8 * sum(math.prod(one.shape) for one in variables) + MARGIN + MARGIN_PER_ARRAY * len(variables)


def read(path: pathlib.Path, shapes: Sequence[Sequence[int]]) -> Stored:
    """Returns the weights file of a model whose weights have the given shapes.

    Raises:
      RunError: it is missing, damaged, larger than such weights are, or holds something else.
    """
    if not path.is_file():
        raise RunError(
            f"{shown(path)} is missing: the run has not finished an epoch yet, or lost the file, which tfvamp train --resume restores"
        )
    count = sum(math.prod(shape) for shape in shapes)
    try:
        contents = read_bytes(path, 8 * count + MARGIN + MARGIN_PER_ARRAY * len(shapes))
        with h5py.File(io.BytesIO(contents), "r") as file:
            stored = _num_values(file)
            epoch = file.attrs.get(EPOCH)
    except FileError as error:
        raise _damaged(path, str(error)) from error
    except Exception as error:  # h5py may raise any error for damaged bytes
        raise _damaged(path, type(error).__name__) from error
    if stored != count:
        raise _damaged(path, f"it holds {stored} numbers where the run's model has {count}")
    whole = isinstance(epoch, (int, np.integer)) and epoch > 0
    return Stored(contents, int(epoch) if whole else None)


def load(model: keras.Model, stored: Stored, path: pathlib.Path) -> None:
    """Gives a model the weights that `read` found.

    Raises:
      RunError: they belong to another model, or are not finite.
    """
    try:
        with _without_optimizer(model):
            model.load_weights(_MemoryFile(stored.contents))
    except Exception as error:  # Keras and h5py may raise any error for damaged bytes
        raise _damaged(path, type(error).__name__) from error
    if not are_finite(model):
        raise RunError(f"{shown(path)} has weights that are not finite: train the run again")


def are_finite(model: keras.Model) -> bool:
    """Returns whether all weights are finite numbers."""
    floating = [weight.value for weight in model.weights if "float" in weight.dtype]
    return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in floating)


def _num_values(file: h5py.File) -> int:
    """Returns the number of values in the arrays of a file; raises ValueError for arrays that are not in the file."""
    count = 0

    def visit(name: str, item) -> None:
        nonlocal count
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise ValueError(f"{name} holds no numbers of its own")
            if item.id.get_storage_size() < item.nbytes:  # Keras does not compress
                raise ValueError(f"{name} states more numbers than it holds")
            count += item.size

    file.visititems(visit)
    return count


def _damaged(path: pathlib.Path, why: str) -> RunError:
    return RunError(f"{shown(path)} is damaged or belongs to another model ({why})")


@contextlib.contextmanager
def _without_optimizer(model: keras.Model):
    """Hides a compiled model's optimiser, which Keras 3.15 takes for weights; these files are without it."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:  # not compiled
        yield
        return
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer
