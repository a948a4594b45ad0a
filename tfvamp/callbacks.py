"""Callbacks for models trained by `fit`: warm-up, the paper's stopping rule, pictures."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras
import numpy as np

from tfvamp import plots
from tfvamp.files import expanded, replace_file
from tfvamp.training.early_stopping import EarlyStopping as Rule


class WarmUp(keras.callbacks.Callback):
    """Raises beta in equal steps: min(1, epoch / epochs) of its final value, with epochs counted from 1.

    It acts on every `KLDivergence` layer and on the models of tfvamp. Validation always uses the
    final value.

    Args:
      epochs: number of epochs until the final value; the paper uses 100.

    >>> warm_up = WarmUp(epochs=20)  # model.fit(..., callbacks=[warm_up])
    >>> warm_up.epochs
    20
    """

    def __init__(self, epochs: int = 100):
        super().__init__()
        if epochs < 1:
            raise ValueError(f"the warm-up must take at least 1 epoch; got {epochs}")
        self.epochs = int(epochs)
        self.fraction = 1.0

    def on_train_begin(self, logs=None):
        if not self._warmed():
            raise ValueError("WarmUp found nothing to warm up: the model has no KLDivergence layer")

    def on_epoch_begin(self, epoch, logs=None):
        self.fraction = min(1.0, (epoch + 1) / self.epochs)
        self._set(self.fraction)

    def on_test_begin(self, logs=None):
        self._set(1.0)

    def on_test_end(self, logs=None):
        self._set(self.fraction)

    def on_train_end(self, logs=None):
        self.fraction = 1.0
        self._set(1.0)

    def _set(self, fraction: float) -> None:
        for layer in self._warmed():
            layer.warm_up(fraction)

    def _warmed(self) -> list:
        layers = self.model._flatten_layers(include_self=True, recursive=True)
        return [layer for layer in layers if hasattr(layer, "warm_up")]


class EarlyStopping(keras.callbacks.Callback):
    """Stops training as the paper does: after more than `patience` epochs without an improvement.

    The count stays at 0 during the warm-up, but a best epoch found during the warm-up counts. At
    the end, the model gets the weights of the best epoch.

    Args:
      patience: number of epochs without an improvement; the paper uses 50.
      warmup: number of epochs of warm-up, as in `WarmUp`.
      monitor: a quantity that `fit` reports; lower is better if its name ends in "loss", otherwise
        higher is better.

    >>> stop = EarlyStopping(patience=15, warmup=20)  # model.fit(..., callbacks=[stop])
    >>> stop.monitor
    'val_loss'
    """

    def __init__(self, patience: int = 50, warmup: int = 100, monitor: str = "val_loss"):
        super().__init__()
        if patience < 0 or warmup < 0:
            raise ValueError(f"patience and warmup must be at least 0; got {patience} and {warmup}")
        self.patience, self.warmup, self.monitor = int(patience), int(warmup), monitor
        self.best_epoch: int | None = None

    def on_train_begin(self, logs=None):
        self.rule = Rule(self.patience, self.warmup)
        self.kept: list[np.ndarray] = []

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"EarlyStopping monitors {self.monitor!r}, which fit does not report: choose one of "
                f"{', '.join(sorted(logs or {})) or 'nothing'} (val_... needs validation_data)"
            )
        value = float(logs[self.monitor])
        if self.rule.update(epoch + 1, -value if self.monitor.endswith("loss") else value):
            self.kept = [variable.numpy() for variable in self._variables()]
        if self.rule.stop:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.kept:
            for variable, value in zip(self._variables(), self.kept, strict=True):
                variable.assign(value)
            self.best_epoch = self.rule.best_epoch

    def _variables(self) -> list[keras.Variable]:
        """Returns the model's weights except beta, which belongs to the epoch and is not learned."""
        return [weight for weight in self.model.weights if weight.trainable or weight.name != "beta"]


class DrawSamples(keras.callbacks.Callback):
    """Writes a grid of samples every few epochs, `epoch-0010.png` and so on, always from the same seed.

    Args:
      folder: folder of the pictures; it is created if needed.
      sample: a function from (n, seed) to images [n, H, W, C] in [0, 1]; None uses the model's
        `sample`.
      every: number of epochs between two pictures.
      n: number of images per picture.
      seed: seed of the latents, the same each time so that pictures can be compared.

    >>> draw = DrawSamples("samples", lambda n, seed: np.zeros([n, 8, 8, 1]), every=5)
    >>> draw.every, draw.n
    (5, 64)
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        sample: Callable | None = None,
        every: int = 10,
        n: int = 64,
        seed: int = 0,
    ):
        super().__init__()
        if every < 1 or n < 1:
            raise ValueError(f"every and n must be at least 1; got {every} and {n}")
        self.folder, self.sample = expanded(folder), sample
        self.every, self.n, self.seed = int(every), int(n), int(seed)

    def on_train_begin(self, logs=None):
        if self.sample is None and not hasattr(self.model, "sample"):
            raise ValueError("the model has no method sample(n, seed): pass DrawSamples(folder, sample=...)")
        self.folder.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            images = keras.ops.convert_to_numpy((self.sample or self.model.sample)(self.n, self.seed))
            if images.ndim != 4 or images.shape[-1] not in (1, 3):
                raise ValueError(
                    f"sample must give images [n, H, W, C], C = 1 or 3; got {list(images.shape)}"
                )
            replace_file(self.folder / f"epoch-{epoch + 1:04d}.png", plots.bare_grid(images))
