"""Where tensors are computed: a device by its name in the settings."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from tfvamp.errors import UsageError


def on(device: str | None, deterministic: bool = False) -> contextlib.AbstractContextManager:
    """Returns a context in which TensorFlow uses a device.

    Args:
      device: "cpu", "gpu" (the first), "gpu:1" and so on; None for what TensorFlow chooses.
      deterministic: use deterministic operations alone, in this process from now on.

    Raises:
      UsageError: TensorFlow sees no such device.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if device is None:
        return contextlib.nullcontext()
    kind, _, index = device.partition(":")
    count = len(tf.config.list_logical_devices(kind.upper()))
    number = int(index or 0)
    if number >= count:
        raise UsageError(
            f"there is no device {device}: TensorFlow sees {count or 'no'} "
            f"{kind.upper()}{'' if count == 1 else 's'}; see tfvamp doctor"
        )
    return tf.device(f"/{kind.upper()}:{number}")
