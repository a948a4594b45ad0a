"""The devices on which tensors are computed, by their names in the settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tfvamp.errors import UsageError


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Makes TensorFlow multiply float32 matrices in float32; use it as `with full_float32():` or as a decorator.

    Otherwise TensorFlow uses factors of ten bits on recent GPUs (TensorFloat-32).
    """
    coarse = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(coarse)


@contextlib.contextmanager
def on(device: str | None, deterministic: bool = False) -> Iterator[None]:
    """Makes TensorFlow use a device, in full float32, within a `with` block.

    Args:
      device: "cpu", "gpu" (the first one), "gpu:1" and so on; None for the one that TensorFlow
        chooses.
      deterministic: whether to use only deterministic operations, in this process from now on.

    Raises:
      UsageError: TensorFlow sees no such device.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    with full_float32(), contextlib.nullcontext() if device is None else tf.device(_name(device)):
        yield


def _name(device: str) -> str:
    """Returns TensorFlow's name of a device."""
    kind, _, index = device.partition(":")
    count = len(tf.config.list_logical_devices(kind.upper()))
    number = int(index or 0)
    if number >= count:
        raise UsageError(
            f"there is no device {device}: TensorFlow sees {count or 'no'} "
            f"{kind.upper()}{'' if count == 1 else 's'}; see tfvamp doctor"
        )
    return f"/{kind.upper()}:{number}"
