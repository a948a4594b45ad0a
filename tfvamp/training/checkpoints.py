"""The state of training after an epoch: weights, optimiser, and where the stopping rule stands."""

from __future__ import annotations

import contextlib
import os
import pathlib

import keras
import tensorflow as tf

from tfvamp.errors import RunError
from tfvamp.training.early_stopping import EarlyStopping


class Checkpoints:
    """Saves and restores the state of training, the newest two kept.

    Args:
      folder: where.
      model: a built and compiled model; its weights and its optimiser's are saved.
      stopping: the stopping rule, whose state is saved.
    """

    def __init__(self, folder: pathlib.Path, model: keras.Model, stopping: EarlyStopping):
        self._stopping = stopping
        self._progress = {
            "epoch": tf.Variable(0, dtype=tf.int64),
            "best": tf.Variable(0.0, dtype=tf.float64),
            "best_epoch": tf.Variable(0, dtype=tf.int64),
            "waited": tf.Variable(0, dtype=tf.int64),
        }
        # The variables themselves: `tf.train.Checkpoint` does not look into the lists of a Keras model.
        state = [weight.value for weight in (*model.weights, *model.optimizer.variables)]
        checkpoint = tf.train.Checkpoint(state=state, **self._progress)
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)

    def save(self, epoch: int) -> None:
        """Saves the state after `epoch`; a crash meanwhile leaves the one before."""
        state = (epoch, self._stopping.best, self._stopping.best_epoch, self._stopping.waited)
        for variable, value in zip(self._progress.values(), state, strict=True):
            variable.assign(value)
        self._manager.save(checkpoint_number=epoch)

    def restore(self) -> int:
        """Restores the newest state; returns its epoch, 0 where there is none.

        Raises:
          RunError: the checkpoint is damaged or belongs to another model.
        """
        newest = self._manager.latest_checkpoint
        if newest is None:
            return 0
        try:
            self._manager.checkpoint.restore(newest).assert_existing_objects_matched()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            raise RunError(
                f"the checkpoint {newest} is damaged or belongs to another model: "
                "delete it to go on from the one before, or train anew"
            ) from error
        self._stopping.best = float(self._progress["best"])
        self._stopping.best_epoch = int(self._progress["best_epoch"])
        self._stopping.waited = int(self._progress["waited"])
        return int(self._progress["epoch"])


def save_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Writes a model's weights as a Keras `.weights.h5` file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"tmp-{path.name}")
    try:
        with _without_optimizer(model):
            model.save_weights(scratch, overwrite=True)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def load_weights(model: keras.Model, path: pathlib.Path) -> None:
    """Reads what `save_weights` wrote.

    Raises:
      RunError: the file is missing, damaged or of another model.
    """
    if not path.is_file():
        raise RunError(f"{path} is missing: the run has not finished an epoch yet")
    try:
        with _without_optimizer(model):
            model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{path} is damaged or belongs to another model ({type(error).__name__})") from error


@contextlib.contextmanager
def _without_optimizer(model: keras.Model):
    """Keras 3.15 takes a compiled model's optimiser for weights, too; these files are without it."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:  # not compiled
        yield
        return
    model.optimizer = None
    try:
        yield
    finally:
        model.optimizer = optimizer
