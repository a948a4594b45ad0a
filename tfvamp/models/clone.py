"""Copies of whole models."""

from __future__ import annotations

import pathlib
import tempfile

import keras


def clone_model(model: keras.Model) -> keras.Model:
    """Returns a copy of a model with its weights, in which layers that shared an encoder share one again.

    `keras.models.clone_model` copies layer by layer, which would leave a `VampPriorLayer` with an
    encoder of its own. This function goes through a `.keras` file instead, which records what is
    shared.

    Args:
      model: a functional model, or a subclassed one with `get_config`; its layers must be
        registered with Keras.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)
