"""Checks of what `fit`, `evaluate` and `predict` of whole models are given, before a compiled step gets it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvamp.layers import indices as numbers_of_images
from tfvamp.layers.priors import PriorLayer
from tfvamp.networks.images import as_images, check_range, images_of, plain_errors

INDEX = "index"  # key of the images' indices among the training images, in a batch that is a dictionary


class _Checked(keras.utils.PyDataset):
    """A `PyDataset` whose batches are checked."""

    def __init__(self, data: keras.utils.PyDataset, check):
        super().__init__(
            workers=data.workers,
            use_multiprocessing=data.use_multiprocessing,
            max_queue_size=data.max_queue_size,
        )
        self.data, self.check = data, check

    def __len__(self):
        return len(self.data)

    @property
    def num_batches(self):
        return self.data.num_batches

    def __getitem__(self, index):
        return self.check(self.data[index])

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()


class ImageInputs:
    """A mixin that makes `fit`, `evaluate`, `predict` and the methods for one batch check their inputs.

    The compiled steps cannot do so, because XLA leaves assertions out. The model must have
    `event_shape`, `check_inputs`, `prior`, `neighbours_per_step` and `variable_dtype`.
    """

    event_shape: tuple[int, ...]
    check_inputs: bool
    prior: PriorLayer
    neighbours_per_step: int | None

    def as_images(self, data) -> tf.Tensor:
        """Returns images [..., H, W, C] as floats; see `tfvamp.networks.images.as_images`."""
        return as_images(data, self.event_shape, self.check_inputs, self.variable_dtype)  # type: ignore[attr-defined]

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        _refuse_weights(**kwargs)
        x, y = self._checked(x, y, training=True)
        if isinstance(validation_data, (tuple, list)) and not isinstance(validation_data[0], tf.data.Dataset):
            images, targets, *rest = (*validation_data, None)[: max(2, len(validation_data))]
            validation_data = (*self._checked(images, targets), *rest)
        elif validation_data is not None:
            validation_data, _ = self._checked(validation_data)
        with plain_errors():
            return super().fit(x, y, *args, validation_data=validation_data, **kwargs)  # type: ignore[misc]

    def evaluate(self, x=None, y=None, *args, **kwargs):
        _refuse_weights(**kwargs)
        if not kwargs.get("_use_cached_eval_dataset"):  # set by `fit`, which has checked the data
            x, y = self._checked(x, y)
        with plain_errors():
            return super().evaluate(x, y, *args, **kwargs)  # type: ignore[misc]

    def predict(self, x, *args, **kwargs):
        x, _ = self._checked(x)
        with plain_errors():
            return super().predict(x, *args, **kwargs)  # type: ignore[misc]

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        _refuse_weights(sample_weight=sample_weight, class_weight=class_weight)
        return super().train_on_batch(*self._checked(x, y, training=True), return_dict=return_dict)  # type: ignore[misc]

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        _refuse_weights(sample_weight=sample_weight)
        return super().test_on_batch(*self._checked(x, y), return_dict=return_dict)  # type: ignore[misc]

    def predict_on_batch(self, x):
        return super().predict_on_batch(self._checked(x)[0])  # type: ignore[misc]

    def _checked(self, x, y=None, training: bool = False) -> tuple[Any, Any]:
        """Returns data that have been checked, or will be when they are read, and their targets."""

        @tf.autograph.experimental.do_not_convert
        def checked(*element):
            return self._checked_element(element, training)

        if isinstance(x, tf.data.Dataset):
            return x.map(checked, tf.data.AUTOTUNE, deterministic=True), y
        if isinstance(x, keras.utils.PyDataset):
            return _Checked(x, lambda element: _parts(checked(*_parts(element)))), y
        if isinstance(x, Iterator):
            return (_parts(checked(*_parts(element))) for element in x), y
        if x is None or not (
            isinstance(x, (np.ndarray, tf.Tensor, Mapping, list)) or hasattr(x, "__array__")
        ):
            return x, y  # a distributed data set, a loader of another library: each step checks the shape
        _warn_of_targets(x, y)
        images = images_of(x)
        fits = isinstance(images, np.ndarray) and images.size and images.shape[1:] == self.event_shape
        if fits and images.dtype == self.variable_dtype:  # type: ignore[attr-defined]
            if self.check_inputs:
                check_range(float(images.min()), float(images.max()))
            return self._with_index(images, x, training), None  # not copied: it may be large
        return self._with_index(self.as_images(x).numpy(), x, training), None

    def _with_index(self, images, x, training: bool):
        """Returns the images, in training together with their indices if the prior uses them."""
        if not training or (indices := index_of(x)) is None or not self.prior.uses_indices:
            return images
        indices = self.checked_indices(indices, images.shape[0])
        return {"image": images, INDEX: indices.numpy() if isinstance(images, np.ndarray) else indices}

    def checked_indices(self, indices, rows: int | None = None, check_values: bool = True) -> tf.Tensor:
        """Returns the indices [B] of training images; see `tfvamp.layers.indices.checked`."""
        # -1 is an image that is no exemplar; it has no neighbours.
        lowest = -1 if self.neighbours_per_step is None else 0
        count = getattr(self.prior, "num_components", None)
        return numbers_of_images.checked(indices, rows, lowest, count, check_values and self.check_inputs)

    def _checked_element(self, element, training: bool):
        """Returns the images of a batch of a data set: (images,), (images, targets) or a dictionary."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(element if len(element) > 1 else element[0])
        _warn_of_targets(x, y)
        images = self._with_index(self.as_images(x), x, training)
        _refuse_weights(sample_weight=weight)
        return images


def images_of_step(data):
    """Returns the images from what `fit` passes to a step.

    Raises:
      ValueError: there are sample weights.
    """
    images, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    _refuse_weights(sample_weight=sample_weight)
    return images


def index_of(batch):
    """Returns the indices [B] of a batch that is a dictionary; None if it has none."""
    return batch.get(INDEX) if isinstance(batch, Mapping) else None


def num_rows(batch) -> tf.Tensor:
    """Returns B of a batch of images, or of a dictionary of them."""
    return tf.shape(tf.nest.flatten(batch)[0])[0]


def _refuse_weights(*, sample_weight=None, class_weight=None, **_) -> None:
    """Raises ValueError for weights of images or classes, which the bound does not support."""
    if sample_weight is not None or class_weight is not None:
        raise ValueError(
            "the models of tfvamp take no sample_weight and no class_weight: repeat images instead"
        )


def _parts(element) -> tuple:
    return element if isinstance(element, tuple) else (element,)


def _warn_of_targets(x, y) -> None:
    """Warns that targets have no effect, unless they are the images themselves, as for an auto-encoder."""
    if y is not None and (isinstance(x, Mapping) or np.shape(x) != np.shape(y)):
        warnings.warn(
            "the models of tfvamp learn from images alone: the targets y have no effect", stacklevel=4
        )
