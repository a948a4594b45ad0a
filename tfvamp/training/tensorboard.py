"""The history for TensorBoard, each epoch once however often the run was stopped; and pictures of some epochs."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from tfvamp import evaluation, files, plots
from tfvamp.config import TrainConfig
from tfvamp.evaluation import diagnostics
from tfvamp.models import LatentVariableModel

PICTURES = "pictures"  # a folder of its own, whose files are kept when the scalars are written again
LARGEST_PICTURES = 2**28  # bytes of the file of an epoch
FIRST_PICTURED = 5  # first epoch with pictures
NUM_SHOWN = 32  # images of each kind
NUM_ENCODED = 500  # validation images whose latents are examined


class Summaries:
    """Writes the rows of a history as scalars, and pictures of what the model has learned.

    Args:
      folder: folder of the files; scalars that are already there are replaced by `rows`.
      rows: the rows written so far.
      config: the settings, for TensorBoard's table of runs.

    Raises:
      FileError: the folder cannot be written.
    """

    def __init__(self, folder: pathlib.Path, rows: list[dict[str, float]], config: TrainConfig):
        def fill(new: pathlib.Path) -> None:
            _keep_pictures(folder / PICTURES, new / PICTURES)
            writer = tf.summary.create_file_writer(str(new))
            _write_settings(writer, config)
            for row in rows:
                _write(writer, row)
            writer.close()

        self._folder = folder
        with self._errors():
            if rows or folder.is_dir():
                files.replace_folder(folder, fill)
            self._writer = tf.summary.create_file_writer(str(folder))
            if not rows:
                _write_settings(self._writer, config)

    def write(self, row: dict[str, float]) -> None:
        """Adds one epoch."""
        with self._errors():
            _write(self._writer, row)
            self._writer.flush()

    def picture(self, model: LatentVariableModel, images: np.ndarray, epoch: int) -> None:
        """Adds samples, reconstructions, pseudo-inputs, and how latents and components are used.

        Args:
          model: the model with the weights that were validated.
          images: validation images, [N, H, W, C].
          epoch: the epoch that is done.
        """
        shown = images[: NUM_SHOWN // 2]
        pictures = {
            "samples": model.sample(NUM_SHOWN, seed=0).numpy(),
            "reconstructions": np.stack([shown, model(shown).numpy()], axis=1).reshape(-1, *shown.shape[1:]),
        }
        pseudo_inputs = model.prior.clipped_pseudo_inputs()
        if pseudo_inputs is not None:
            pictures["pseudo-inputs"] = plots.stretched(pseudo_inputs[:NUM_SHOWN].numpy())
        posteriors = evaluation.encode(model, evaluation.as_images(images, model))
        with self._errors():
            # One file for each epoch, so that a kill cuts off only one of them.
            writer = tf.summary.create_file_writer(str(self._folder / PICTURES), filename_suffix=f".{epoch}")
            with writer.as_default(step=epoch):
                for name, array in pictures.items():
                    tf.summary.image(name, plots.tile(array)[np.newaxis])
                for name, posterior in zip(model.latent_names, posteriors, strict=True):
                    spectrum = diagnostics.variances(posterior.loc.numpy())
                    tf.summary.histogram(f"variances of the means of {name}", spectrum)
                    active = diagnostics.active_units(posterior.loc.numpy())
                    tf.summary.scalar(f"active units of {name}", active)
                if model.prior.is_mixture():
                    usage = diagnostics.usage(posteriors[0], model.prior())
                    tf.summary.histogram("shares of the components", usage.shares)
                    tf.summary.scalar("effective number of components", usage.effective)
            writer.close()

    def close(self) -> None:
        """Closes the file; the folder may be moved after that."""
        with self._errors():
            self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise files.cannot_write(self._folder, error) from error


def _keep_pictures(old: pathlib.Path, new: pathlib.Path) -> None:
    """Copies event files, only regular ones that are in the folder itself."""
    if old.is_symlink() or not old.is_dir():
        return
    new.mkdir()
    with os.scandir(old) as entries:
        for entry in entries:
            regular = entry.is_file(follow_symlinks=False) and entry.name.startswith("events.")
            if regular and entry.stat(follow_symlinks=False).st_size <= LARGEST_PICTURES:
                shutil.copyfile(entry.path, new / entry.name, follow_symlinks=False)


def is_pictured(epoch: int) -> bool:
    """Returns whether pictures follow an epoch: 5, 10, 20, 50, 100, 200, ...

    >>> [epoch for epoch in range(101) if is_pictured(epoch)]
    [5, 10, 20, 50, 100]
    """
    return epoch >= FIRST_PICTURED and str(epoch).rstrip("0") in ("1", "2", "5")


def _write(writer: tf.summary.SummaryWriter, row: dict[str, float]) -> None:
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            if name != "epoch":
                tf.summary.scalar(name.replace("_", "/", 1), value)


def _write_settings(writer: tf.summary.SummaryWriter, config: TrainConfig) -> None:
    """Writes the settings as TensorBoard's "HParams"."""
    values: dict[str, Any] = {
        name: value for name, value in config.to_dict().items() if isinstance(value, (bool, int, float, str))
    }
    with writer.as_default():
        hparams.hparams(values)
