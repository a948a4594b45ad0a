"""The indices of training images among the exemplars of a prior."""

from __future__ import annotations

import re

import tensorflow as tf

from tfvamp.errors import UsageError

NO_INDEX = "the indices of training images must lie between"
FOUND = re.compile(re.escape(f"[{NO_INDEX}]") + r" \[(\S+)\] \[(\S+)\] \[(\S+)\] \[(\S+)\]")


def checked(
    indices, rows: int | None = None, lowest: int = -1, count: int | None = None, check_values: bool = True
) -> tf.Tensor:
    """Returns the indices [B] of images among the exemplars of a prior.

    Args:
      indices: what the caller gave.
      rows: B; None if it is not known.
      lowest: smallest index that is allowed: 0, or -1, which represents an image that is not an exemplar.
      count: N, number of exemplars; None if it is not known.
      check_values: whether to check the values. In a graph this is an assertion, which XLA leaves out.

    Raises:
      UsageError: they are not B whole numbers, or one of them lies outside [lowest, N - 1].
      tf.errors.InvalidArgumentError: in a graph, when it runs: one of them lies outside; see
        `raise_plainly`.
    """
    try:
        indices = tf.convert_to_tensor(indices)
        fits = indices.dtype.is_integer and indices.shape.is_compatible_with([rows])
    except (ValueError, TypeError):
        fits = False
    if not fits:
        got = (
            f"{indices.dtype.name} of shape {list(indices.shape)}"
            if tf.is_tensor(indices)
            else repr(indices)[:80]
        )
        raise UsageError(
            f"the indices of training images must be whole numbers of shape [{'B' if rows is None else rows}], one per "
            f"image; got {got}"
        )
    if indices.dtype not in (tf.int32, tf.int64):
        indices = tf.cast(indices, tf.int64)
    if count is None or not check_values:
        return indices
    low, high = tf.reduce_min(indices), tf.reduce_max(indices)
    inside = (low >= lowest) & (high < count) | (tf.size(indices) == 0)
    if tf.is_symbolic_tensor(indices):
        message = [NO_INDEX, lowest, count - 1, low, high]
        with tf.control_dependencies([tf.debugging.Assert(inside, message)]):
            return tf.identity(indices)
    if not inside:
        raise UsageError(_no_index(lowest, count - 1, int(low), int(high)))
    return indices


def _no_index(lowest: int, highest: int, low: int, high: int) -> str:
    """Returns a message about indices from `low` to `high`."""
    none = " (-1: the image is no exemplar)" if lowest < 0 else ""
    return f"{NO_INDEX} {lowest}{none} and {highest}, the last of the prior's exemplars; got values from {low} to {high}"


def raise_plainly(message: str, error: Exception) -> None:
    """Raises the UsageError of `checked` if a message of TensorFlow is that of its failed assertion."""
    if found := FOUND.search(message):
        raise UsageError(_no_index(*map(int, found.groups()))) from error
