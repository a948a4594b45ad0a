"""Likelihoods: twins, normalised, stable in float32, drawn with their probabilities."""

import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests import twins
from tfvamp.layers import BernoulliLikelihood, DiscretizedLogistic, DiscretizedLogisticLikelihood
from tfvamp.layers.likelihoods import log_prob_of_pixels

CENTRES = ((np.arange(256) + 0.5) / 256).astype(np.float32)
both_forms = pytest.mark.parametrize("open_ends", [True, False])


def test_bernoulli_equals_its_twin(images):
    logits = np.random.default_rng(0).normal(scale=8, size=(8, 30)).astype(np.float32)
    likelihood = BernoulliLikelihood((6, 5, 1))(logits)
    assert likelihood.event_shape == (6, 5, 1) and likelihood.batch_shape == (8,)
    np.testing.assert_allclose(
        likelihood.log_prob(images), twins.bernoulli_log_prob(images.reshape(8, -1), logits), rtol=2e-6
    )
    np.testing.assert_allclose(
        likelihood.mean().numpy().reshape(8, -1), scipy.special.expit(logits), rtol=1e-5
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", [(28, 28, 1), (13, 1, 1), (67, 1, 1)])
def test_the_sum_over_pixels_and_its_gradients(scale, shape):
    """As x l - softplus(l) in float64, at logits of nought and of any size, with either argument broadcast."""
    rng = np.random.default_rng(2)
    for ahead in (((4, 2), (2,)), ((2,), (4, 2))):
        logits = tf.constant(scale * rng.normal(size=(*ahead[0], *shape)), tf.float32)
        x = tf.constant(rng.integers(0, 2, (*ahead[1], *shape)), tf.float32)

        def both(function, *at):
            with tf.GradientTape() as tape:
                tape.watch(at)
                value = function(*at)
            return value, *tape.gradient(value, at)

        def exact(x, logits):
            return tf.reduce_sum(x * logits - tf.nn.softplus(logits), axis=[-3, -2, -1])

        expected = both(exact, tf.cast(x, tf.float64), tf.cast(logits, tf.float64))
        for found, right in zip(both(log_prob_of_pixels, x, logits), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=2e-6, atol=2e-6 * max(1.0, np.abs(right).max()))


def test_bernoulli_is_normalised():
    logits = np.array([[0.3, -2.0, 1.1]], np.float32)
    likelihood = BernoulliLikelihood((1, 3, 1))(logits)
    x = (
        np.array(np.meshgrid([0, 1], [0, 1], [0, 1]))
        .reshape(3, 8)
        .T.reshape(8, 1, 1, 3, 1)
        .astype(np.float32)
    )
    assert np.exp(likelihood.log_prob(x)).sum() == pytest.approx(1.0, rel=1e-6)


def test_clipped_likelihood_bounds_probabilities():
    logits = np.array([[-50.0, 0.5, 50.0]], np.float32)
    likelihood = BernoulliLikelihood((1, 3, 1), clip=1e-5)(logits)
    p = np.array([1e-5, scipy.special.expit(0.5), 1 - 1e-5])
    np.testing.assert_allclose(likelihood.mean().numpy().ravel(), p, rtol=1e-3)
    x = np.array([1.0, 1.0, 0.0], np.float32).reshape(1, 1, 3, 1)
    expected = np.log(1e-5) + np.log(p[1]) + np.log(1e-5)
    np.testing.assert_allclose(likelihood.log_prob(x), [expected], rtol=1e-5)
    with pytest.raises(ValueError, match="clip must lie between 0 and 0.5; got 0.7"):
        BernoulliLikelihood((1, 3, 1), clip=0.7)


def test_pixels_are_drawn_with_their_probabilities():
    logits = np.linspace(-3, 3, 10, dtype=np.float32)[None]
    likelihood = BernoulliLikelihood((2, 5, 1))(logits)
    draws = likelihood.sample(20_000, seed=(1, 2)).numpy()
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = scipy.special.expit(logits).reshape(1, 2, 5, 1)
    assert (np.abs(draws.mean(0) - p) < 5 * np.sqrt(p * (1 - p) / 20_000)).all()


def raw_parameters(count, seed=0):
    """Logits and log-scales, some of them beyond the bounds, and grey images with all sorts of bins."""
    rng = np.random.default_rng(seed)
    logits, log_scale = rng.normal(0, 4, (count, 30)), rng.uniform(-6, 1, (count, 30))
    bins = rng.integers(0, 256, (count, 6, 5, 1))
    bins[:, 0], bins[:, 1] = 0, 255
    return logits.astype(np.float32), log_scale.astype(np.float32), CENTRES[bins]


@both_forms
def test_logistic_equals_its_twin(open_ends):
    logits, log_scale, x = raw_parameters(40)
    likelihood = DiscretizedLogisticLikelihood((6, 5, 1), open_ends)(np.concatenate([logits, log_scale], -1))
    assert likelihood.event_shape == (6, 5, 1) and likelihood.batch_shape == (40,)
    expected = twins.discretized_logistic_log_prob(x.reshape(40, -1), logits, log_scale, open_ends)
    per_pixel = likelihood.distribution.log_prob(x).numpy().reshape(40, -1)
    # The edges are differences of float32 near 1, seen through a scale of e^-4.5: 6e-8 * 90 a pixel.
    if open_ends:
        np.testing.assert_allclose(per_pixel, expected, rtol=2e-6, atol=1e-4)
    else:  # a difference of two float32 sigmoids
        np.testing.assert_allclose(np.exp(per_pixel), np.exp(expected), atol=1e-6)
    np.testing.assert_allclose(likelihood.log_prob(x), per_pixel.sum(-1), rtol=1e-5)


def test_the_256_bins_sum_to_one():
    loc = np.array([1 / 512, 0.02, 0.37, 0.5, 0.93, 511 / 512], np.float32)
    log_scale = np.array([-4.5, -3.0, -1.0, 0.0], np.float32)
    loc, log_scale = (a.astype(np.float32) for a in np.meshgrid(loc, log_scale))
    log_prob = DiscretizedLogistic(loc, log_scale).log_prob(CENTRES[:, None, None]).numpy()
    assert np.isfinite(log_prob).all()
    np.testing.assert_allclose(np.exp(log_prob.astype(np.float64)).sum(0), 1.0, rtol=2e-5)


def test_the_form_of_the_papers_code_does_not_sum_to_one():
    total = np.exp(DiscretizedLogistic(0.01, 0.0, open_ends=False).log_prob(CENTRES).numpy()).sum()
    assert total == pytest.approx(scipy.special.expit(0.99) - scipy.special.expit(-0.01), abs=1e-4)  # 0.23


def test_far_bins_keep_their_gradient():
    """A white pixel under a black mean: log-probability -89, not log(0) or a floor."""
    log_scale = tf.Variable(-4.5)
    with tf.GradientTape() as tape:
        loc = tf.Variable(1 / 512)
        log_prob = DiscretizedLogistic(loc, log_scale).log_prob(CENTRES[255])
    expected = -(255 / 256 - 1 / 512) * math.exp(4.5)
    assert float(log_prob) == pytest.approx(expected, rel=1e-6)
    gradients = tape.gradient(log_prob, [loc, log_scale])
    assert float(gradients[0]) == pytest.approx(math.exp(4.5), rel=1e-5)
    assert float(gradients[1]) == pytest.approx(-expected, rel=1e-5)


def test_bins_of_grey_values():
    """x = v / 255 and x = (v + 0.5) / 256 both lie in bin v; the edges of a bin belong to the bin above."""
    distribution = DiscretizedLogistic(0.4, -2.0)
    by_bin = distribution.log_prob(CENTRES)
    np.testing.assert_array_equal(distribution.log_prob(np.arange(256, dtype=np.float32) / 255), by_bin)
    np.testing.assert_array_equal(distribution.log_prob(np.arange(256, dtype=np.float32) / 256), by_bin)
    np.testing.assert_array_equal(distribution.log_prob([1.0]), by_bin[255:])


@both_forms
def test_grey_pixels_are_drawn_with_their_probabilities(open_ends):
    loc, log_scale = np.array([0.01, 0.4, 0.97], np.float32), np.array([-2.0, -3.5, -0.5], np.float32)
    distribution = DiscretizedLogistic(loc, log_scale, open_ends)
    draws = distribution.sample(20_000, seed=(3, 4)).numpy()
    assert np.isin(draws, CENTRES).all()
    p = np.exp(DiscretizedLogistic(loc, log_scale).log_prob(CENTRES[:, None]).numpy().astype(np.float64))
    shares = np.stack([(draws == centre).mean(0) for centre in CENTRES])
    # 768 shares: one beyond five of its deviations has a chance of 4e-4; a Poisson tail for rare bins.
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / 20_000) + 5e-4).all()


def test_mean_of_grey_pixels():
    loc, log_scale, _ = raw_parameters(4)
    loc = np.clip(scipy.special.expit(loc), 1 / 512, 511 / 512).astype(np.float32)
    distribution = DiscretizedLogistic(loc, np.clip(log_scale, -4.5, 0))
    p = np.exp(distribution.log_prob(CENTRES[:, None, None]).numpy().astype(np.float64))
    expected = (p * CENTRES[:, None, None]).sum(0)
    np.testing.assert_allclose(distribution.mean(), expected, atol=4e-5)  # the error of the trapezium rule


def test_likelihood_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"event_shape must be \(H, W, C\); got \(6, 5\)"):
        DiscretizedLogisticLikelihood((6, 5))
