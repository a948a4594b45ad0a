"""Images in the form that networks take: of the right shape, as floats, in [0, 1]."""

from __future__ import annotations

import contextlib
import contextvars
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfvamp.errors import UsageError
from tfvamp.layers import indices

KEYS = ("image", "images", "x")  # of the images in a dictionary; the first is that of TFDS
TOLERANCE = 1e-5  # for rounding: 255 * float32(1 / 255) is above 1
OUTSIDE = "pixels must lie in [0, 1]"
FOUND = re.compile(re.escape(f"[{OUTSIDE}, without NaN; got]") + r" \[(\S+)\] \[to\] \[(\S+)\]")


_checking = contextvars.ContextVar("checking", default=True)


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Leaves out the check of values within it: the caller has done it, or makes a graph that does."""
    token = _checking.set(False)
    try:
        yield
    finally:
        _checking.reset(token)


def as_images(
    data, event_shape: Sequence[int], check_values: bool = True, dtype: str = "float32"
) -> tf.Tensor:
    """Returns images [..., H, W, C] as floats from the data of a caller.

    Args:
      data: images [B, H, W, C], or [B, H, W] if C is 1, or [B, H * W * C]. They are floats, or
        integers or booleans, which are cast. It may also be a dictionary with the images under
        "image", as in TFDS.
      event_shape: (H, W, C).
      check_values: whether to check that all pixels lie in [0, 1]. In a graph this is an assertion,
        which XLA leaves out.
      dtype: dtype of the result.

    Raises:
      UsageError: the shape does not fit, the values are not numbers, or pixels lie outside [0, 1]
        or are NaN.
      tf.errors.InvalidArgumentError: in a graph, when it runs: pixels lie outside [0, 1] or are NaN.
    """
    images = with_event(_tensor(images_of(data)), event_shape)
    if not (images.dtype.is_floating or images.dtype.is_integer or images.dtype.is_bool):
        raise UsageError(f"images must be numbers; got {images.dtype.name}")
    images = tf.cast(images, dtype)
    return checked_values(images) if check_values and _checking.get() else images


def checked_values(images: tf.Tensor) -> tf.Tensor:
    """Returns the images if all their pixels lie in [0, 1]; otherwise raises as `as_images` does."""
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    if not tf.is_symbolic_tensor(images):
        if tf.size(images):
            check_range(float(low), float(high))
        return images
    # An empty batch has the range from infinity to minus infinity.
    inside = (low >= -TOLERANCE) & (high <= 1.0 + TOLERANCE)  # false for NaN
    message = [OUTSIDE + ", without NaN; got", low, "to", high]
    with tf.control_dependencies([tf.debugging.Assert(inside | (low > high), message)]):
        return tf.identity(images)


def check_range(low: float, high: float) -> None:
    """Raises UsageError unless pixels between `low` and `high` lie in [0, 1]; NaN does not."""
    if not (low >= -TOLERANCE and high <= 1.0 + TOLERANCE):
        raise UsageError(_outside(low, high))


def _outside(low: float, high: float) -> str:
    """Returns the part of a message that says what is wrong with pixels of a range, and what helps."""
    if math.isnan(low) or math.isnan(high):
        return f"{OUTSIDE}; got NaN. Leave out or fill in the pixels that are missing"
    text = f"{OUTSIDE}; got values from {low:.6g} to {high:.6g}. "
    if low >= 0.0:
        largest = next((2**bits - 1 for bits in (8, 16, 32) if high <= 2**bits - 1), high)
        return text + f"Divide by {largest:.10g}"
    if low >= -1.0 and high <= 1.0:
        return text + "Take (images + 1) / 2"
    return text + (
        "Bring them into [0, 1]; for standardised data build a model of layers, with "
        "tfvamp.layers.GaussianLikelihood"
    )


def _tensor(data) -> tf.Tensor:
    if data is None:
        raise UsageError("images must be an array [B, H, W, C]; got None")
    try:
        return tf.convert_to_tensor(data)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"images must be an array [B, H, W, C] of numbers; got {type(data).__name__}, which TensorFlow cannot read"
        ) from error


def images_of(data) -> Any:
    """Returns the images of a dictionary, or any other data unchanged."""
    if not isinstance(data, Mapping):
        return data
    for key in KEYS:
        if key in data:
            return data[key]
    if len(data) == 1:
        return next(iter(data.values()))
    raise UsageError(
        f"a dictionary of data must have the images under {KEYS[0]!r}; got the keys {', '.join(map(repr, data))}"
    )


def with_event(images: tf.Tensor, event_shape: Sequence[int]) -> tf.Tensor:
    """Returns images of any dtype as [..., H, W, C], reshaped if that is unambiguous.

    Raises:
      UsageError: the shape does not fit.
    """
    event, shape = tuple(event_shape), images.shape
    if shape.rank is None:
        return tf.ensure_shape(images, [None, *event])
    sizes = tuple(shape)
    if shape.rank > 3 and shape[-3:].is_compatible_with(event):
        return images if sizes[-3:] == event else tf.ensure_shape(images, [*sizes[:-3], *event])
    if shape.rank == 3 and event[-1] == 1 and shape[1:].is_compatible_with(event[:2]):
        return tf.ensure_shape(images[..., tf.newaxis], [sizes[0], *event])
    if shape.rank == 2 and sizes[1] == math.prod(event):
        return tf.reshape(images, [-1, *event])
    text = f"images must have shape [B, H, W, C] = [B, {', '.join(map(str, event))}]; got {list(sizes)}"
    if shape.rank > 3 and sizes[-3:] == (event[2], *event[:2]):
        axes = [*range(shape.rank - 3), shape.rank - 2, shape.rank - 1, shape.rank - 3]
        text += f", with the channels first. Move them to the end: tf.transpose(images, {axes})"
    elif sizes == event or (event[-1] == 1 and sizes == event[:2]):
        text += ", one image without the axis of the batch. Add it: images[tf.newaxis]"
    elif shape.rank == 4:
        text += ". Resize the images, or build the model with their event_shape"
    raise UsageError(text)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns a failed assertion of these checks in a pipeline or a graph into the UsageError of an array."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        message = " ".join(error.message.split())
        if found := FOUND.search(message):
            raise UsageError(_outside(*map(float, found.groups()))) from error
        indices.raise_plainly(message, error)
        raise
