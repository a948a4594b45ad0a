"""Copies of whole models."""

from __future__ import annotations

import pathlib
import tempfile

import keras


def clone_model(model: keras.Model) -> keras.Model:
    """Returns a copy of a model, its weights too, in which layers that share an encoder share one again.

    `keras.models.clone_model` copies layer by layer, so that a `VampPriorLayer` would be left with an encoder of its
    own; this goes through a `.keras` file, which knows what is shared.

    Args:
      model: functional, or subclassed with `get_config`; its layers registered with Keras.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)
