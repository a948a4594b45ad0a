"""Stateless seeds and draws: the same everywhere, different where they should be, well distributed."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfvamp import seeds
from tfvamp.errors import UsageError


@pytest.mark.parametrize("draw", [seeds.uniform, seeds.normal])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_eager_graph_and_xla_draw_the_same(draw, dtype):
    def function(seed, index):
        return draw([200, 40], seeds.fold_in(seed, index), dtype)

    # The seed is an argument: a constant one is folded before XLA sees it and proves nothing.
    seed, index = tf.constant([11, 12]), tf.constant(3)
    eager = function(seed, index).numpy()
    # erfinv near 1 amplifies rounding by 1 / density, some 1e3 at five deviations.
    tolerance = 0.0 if draw is seeds.uniform else 1e3 * np.finfo(eager.dtype).eps
    for jit in (False, True):
        graph = tf.function(function, jit_compile=jit, autograph=False)(seed, index).numpy()
        np.testing.assert_allclose(graph, eager, atol=tolerance, rtol=tolerance)


def test_uniform_never_reaches_its_ends_and_is_uniform():
    draws = seeds.uniform([1_000_000], seeds.stateless(5)).numpy()
    assert draws.min() > 0.0 and draws.max() < 1.0
    # A fixed seed; a true null is rejected once in a thousand seeds.
    assert scipy.stats.kstest(draws, "uniform").pvalue > 1e-3


def test_normal_is_normal():
    draws = seeds.normal([200_000], seeds.stateless(6)).numpy()
    assert np.isfinite(draws).all()
    assert scipy.stats.kstest(draws, "norm").pvalue > 1e-3  # as above


def test_streams_differ():
    streams = [
        seeds.stateless(0),
        seeds.stateless(1),
        seeds.stateless(0, "a"),
        seeds.stateless(0, "b"),
        seeds.fold_in(seeds.stateless(0), 0),
        seeds.fold_in(seeds.stateless(0), 1),
        seeds.fold_in_name(seeds.stateless(0), "a"),
    ]
    draws = np.stack([seeds.uniform([64], seed).numpy() for seed in streams])
    assert len(np.unique(draws[:, 0])) == len(streams)
    correlation = np.corrcoef(draws) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(64)  # five standard errors


def test_integers_become_seeds():
    assert seeds.as_seed(7).shape == (2,)
    with pytest.raises(UsageError, match="seed must lie between 0 and 2147483647; got -1"):
        seeds.as_seed(-1)
    assert seeds.as_seed(tf.constant([1, 2])).numpy().tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"seed must be an integer or have shape \[2\]; got shape \(3,\)"):
        seeds.as_seed(tf.constant([1, 2, 3]))
