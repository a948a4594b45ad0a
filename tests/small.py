"""Small models and networks, and what tests do with them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tests.storm import small_blocks
from tfvamp.networks import conv, pixelcnn
from tfvamp.runs import Run
from tfvamp.training import checkpoints


@contextlib.contextmanager
def eagerly():
    """TensorFlow functions run op by op: on small models faster than being compiled for a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch.setattr)
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)


def check_runs_agree(run, other, epochs: int, of_rows: float, of_weights: float):
    """Two histories agree except for rounding, and so do the weights and the moments of the optimiser; with these relative errors."""
    ours, theirs = Run(run).rows(), Run(other).rows()
    assert len(ours) == len(theirs) == epochs
    for a, b in zip(ours, theirs, strict=True):
        for name in set(a) - {"seconds"}:
            assert a[name] == pytest.approx(b[name], rel=of_rows), name
    newest = [checkpoints.found(folder / "checkpoints")[0] for folder in (run, other)]
    with np.load(newest[0]) as a, np.load(newest[1]) as b:
        for name in sorted(set(a) - {"meta", "best"}):
            np.testing.assert_allclose(a[name], b[name], rtol=of_weights, atol=of_weights / 100)


def small_model(kind: type, prior: str = "vamp", event_shape=(6, 5, 1), **kwargs):
    """An untrained model with D = 3, K = 5, 8 hidden units."""
    tf.keras.utils.set_random_seed(3)
    pseudo_inputs = np.random.default_rng(1).uniform(0.2, 0.8, (5, *event_shape)).astype(np.float32)
    return kind(
        event_shape=event_shape,
        latent_dims=3,
        hidden_units=8,
        prior=prior,
        components=5,
        pseudo_inputs=pseudo_inputs,
        **kwargs,
    )


def small_vae(prior: str = "vamp", **kwargs) -> tfvamp.models.VAE:
    return small_model(tfvamp.models.VAE, prior, **kwargs)


def small_hvae(prior: str = "vamp", **kwargs) -> tfvamp.models.HVAE:
    return small_model(tfvamp.models.HVAE, prior, **kwargs)


def shallow_networks(setattr) -> None:
    """Convolutional networks made from here on have fewer layers and filters, but each kind of layer.

    For tests of what does not depend on how many there are; the real depths are seen to by test_conv.py,
    test_pixelcnn.py, the twins and the counts of weights.
    """
    setattr(conv, "ENCODER", ((8, 7, 1), (8, 3, 2), (6, 3, 2)))
    setattr(conv, "JOINT_ENCODER", ((8, 3, 1), (8, 3, 2), (6, 3, 2)))
    setattr(conv, "DECODER", ((8, 3, 1),) * 2)
    setattr(pixelcnn, "FILTERS", 8)
    setattr(pixelcnn, "NUM_LAYERS", 3)


def build_optimizer(model) -> None:
    """Makes the optimiser's variables now: `fit` traces a step twice when they are made in it."""
    model.optimizer.build(model.trainable_variables)
