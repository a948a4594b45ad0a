"""Images that show what a trained model has learned of its prior."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfvamp import plots, seeds
from tfvamp.models import LatentVariableModel


class Components(NamedTuple):
    """The first components of a prior, as images.

    Attributes:
      pseudo_inputs: [n, H, W, C], each with its contrast stretched.
      generated: [m, H, W, C], what the components generate at their means; m >= n.
    """

    pseudo_inputs: np.ndarray
    generated: np.ndarray


def generated(model: LatentVariableModel, z, seed: int) -> np.ndarray:
    """Returns the images [n, H, W, C] that a model generates at top latents z [n, D]."""
    likelihood = model.generate(tf.convert_to_tensor(z))
    return model.pictures(likelihood, seeds.stateless(seed)).numpy()


def components(model: LatentVariableModel, number: int, seed: int) -> Components | None:
    """Returns what the first `number` components generate, and the pseudo-inputs of the first half of them.

    It returns None for a prior without pseudo-inputs.
    """
    pseudo_inputs, centres = model.prior.clipped_pseudo_inputs(), model.prior.centres()
    if pseudo_inputs is None or centres is None:
        return None
    inputs = plots.stretched(pseudo_inputs[: max(1, number // 2)].numpy())
    return Components(inputs, generated(model, centres[:number], seed))
