"""The mixture's density, sampler and memory."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import twins
from tfvamp.layers import DiagonalGaussian, DiagonalGaussianMixture

D = 40


def mixture(num_components, low=-6.0, high=2.0, seed=0, spread=2.0, dims=D):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=num_components).astype(np.float32)
    loc = rng.normal(scale=spread, size=(num_components, dims)).astype(np.float32)
    log_variance = rng.uniform(low, high, size=(num_components, dims)).astype(np.float32)
    distribution = DiagonalGaussianMixture(
        tfd.Categorical(logits=logits), DiagonalGaussian(loc, log_variance)
    )
    return distribution, (logits, loc, log_variance)


def points(parameters, count, seed=1):
    """Points near components, where the mixture is evaluated in practice."""
    _, loc, log_variance = parameters
    rng = np.random.default_rng(seed)
    k = rng.integers(len(loc), size=count)
    return (loc[k] + np.exp(0.5 * log_variance[k]) * rng.normal(size=(count, loc.shape[1]))).astype(
        np.float32
    )


@pytest.mark.parametrize("num_components", [1, 2, 500])
@pytest.mark.parametrize("bounds", [(-6.0, 2.0), (-6.0, -6.0), (2.0, 2.0)])
def test_density_equals_the_float64_twin(num_components, bounds):
    distribution, parameters = mixture(num_components, *bounds)
    z = points(parameters, 300)
    expected = twins.mixture_log_prob(z, *parameters)
    # The product is in float64; what is left is the rounding of the float32 result (and of
    # its logsumexp): a few units in the last place of values up to some 100 nats.
    np.testing.assert_allclose(
        distribution.log_prob(z), expected, atol=4 * np.spacing(np.float32(128)), rtol=4e-7
    )


@pytest.mark.parametrize("num_components", [1, 2, 500])
def test_density_equals_tfps(num_components):
    distribution, parameters = mixture(num_components)
    logits, loc, log_variance = (tf.cast(parameter, tf.float64) for parameter in parameters)
    plain = tfd.MixtureSameFamily(
        tfd.Categorical(logits=logits), tfd.MultivariateNormalDiag(loc, tf.exp(0.5 * log_variance))
    )
    z = points(parameters, 50)
    np.testing.assert_allclose(
        distribution.log_prob(z), plain.log_prob(z.astype(np.float64)), rtol=1e-6, atol=4e-5
    )


def test_far_away_is_finite_and_right():
    distribution, parameters = mixture(3, -6.0, -6.0)
    z = np.full((1, D), 30.0, np.float32)
    expected = twins.mixture_log_prob(z, *parameters)
    assert expected[0] < -1e6
    np.testing.assert_allclose(distribution.log_prob(z), expected, rtol=1e-6)


def test_gradients_equal_those_of_tfps_density():
    _, (logits, loc, log_variance) = mixture(4, dims=3)
    z = points((logits, loc, log_variance), 6)

    def gradients(build):
        variables = [tf.constant(a, tf.float64) for a in (z, logits, loc, log_variance)]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            total = tf.reduce_sum(build(*variables[1:]).log_prob(variables[0]))
        return tape.gradient(total, variables)

    ours = gradients(
        lambda logits, m, v: DiagonalGaussianMixture(tfd.Categorical(logits=logits), DiagonalGaussian(m, v))
    )
    plain = gradients(
        lambda logits, m, v: tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits), tfd.MultivariateNormalDiag(m, tf.exp(0.5 * v))
        )
    )
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_one_component_is_the_posterior_itself():
    distribution, (_, loc, log_variance) = mixture(1)
    z = points((None, loc, log_variance), 20)
    component = DiagonalGaussian(loc[0], log_variance[0])
    np.testing.assert_allclose(distribution.log_prob(z), component.log_prob(z), rtol=1e-6, atol=2e-5)


def test_permuting_components_changes_nothing():
    distribution, (logits, loc, log_variance) = mixture(50)
    order = np.random.default_rng(4).permutation(50)
    permuted = DiagonalGaussianMixture(
        tfd.Categorical(logits=logits[order]), DiagonalGaussian(loc[order], log_variance[order])
    )
    z = points((logits, loc, log_variance), 100)
    np.testing.assert_allclose(distribution.log_prob(z), permuted.log_prob(z), atol=1e-5, rtol=1e-6)


def test_leading_dimensions():
    distribution, parameters = mixture(5)
    z = points(parameters, 24)
    flat = distribution.log_prob(z)
    np.testing.assert_array_equal(distribution.log_prob(z.reshape(2, 3, 4, D)), tf.reshape(flat, [2, 3, 4]))
    assert distribution.log_prob(z[0]).shape == ()
    assert distribution.sample(seed=(1, 2)).shape == (D,)
    assert distribution.sample([3, 2], seed=(1, 2)).shape == (3, 2, D)


def test_sampling_uses_all_components_with_their_weights():
    # Components far apart, so that each sample tells its component.
    count, num_components = 20_000, 100
    logits = np.random.default_rng(0).normal(scale=0.5, size=num_components).astype(np.float32)
    loc = np.zeros((num_components, 2), np.float32)
    loc[:, 0] = 100.0 * np.arange(num_components)
    distribution = DiagonalGaussianMixture(
        tfd.Categorical(logits=logits), DiagonalGaussian(loc, np.zeros_like(loc))
    )
    component = np.round(distribution.sample(count, seed=(3, 4)).numpy()[:, 0] / 100.0).astype(int)
    weights = np.exp(logits.astype(np.float64))
    expected = count * weights / weights.sum()
    assert expected.min() > 5
    observed = np.bincount(component, minlength=num_components)
    # A fixed seed; a right sampler fails once in a thousand seeds.
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_samples_have_the_moments_of_the_mixture():
    distribution, (logits, loc, log_variance) = mixture(6, dims=3)
    count = 200_000
    draws = distribution.sample(count, seed=(5, 6)).numpy().astype(np.float64)
    weights = np.exp(logits) / np.exp(logits).sum()
    mean = weights @ loc
    variance = weights @ (np.exp(log_variance) + loc**2) - mean**2
    # Five standard errors of a mean; the fourth moment bounds those of the variance.
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(variance.max() / count))
    fourth = ((draws - mean) ** 4).mean(0)
    np.testing.assert_array_less(np.abs(draws.var(0) - variance), 5 * np.sqrt(fourth / count))


def test_a_component_without_weight_is_never_drawn():
    logits = np.array([0.0, -np.inf, 0.0, -np.inf], np.float32)
    loc = np.arange(4, dtype=np.float32)[:, None] * 100
    distribution = DiagonalGaussianMixture(
        tfd.Categorical(logits=logits), DiagonalGaussian(loc, np.zeros_like(loc))
    )
    component = np.round(distribution.sample(5000, seed=(1, 1)).numpy()[:, 0] / 100.0)
    assert set(component) == {0.0, 2.0}


def test_eager_graph_and_xla_agree():
    distribution, parameters = mixture(20)
    z = tf.constant(points(parameters, 10))

    def function(distribution, z, seed):
        return distribution.log_prob(z), distribution.sample(50, seed=seed)

    seed = tf.constant([8, 9])
    eager = function(distribution, z, seed)
    for jit in (False, True):
        graph = tf.function(function, jit_compile=jit, autograph=False)(distribution, z, seed)
        np.testing.assert_allclose(graph[0], eager[0], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(graph[1], eager[1], rtol=1e-4, atol=1e-4)


def test_it_is_a_mixture_same_family_and_a_composite_tensor():
    distribution, _ = mixture(3)
    assert isinstance(distribution, tfd.MixtureSameFamily)
    assert isinstance(distribution, tf.__internal__.CompositeTensor)


@pytest.mark.parametrize("method", ["log_prob", "sample"])
def test_no_tensor_of_samples_times_components_times_dimensions(method):
    num_components, num_samples = 50, 100
    distribution, _ = mixture(num_components)

    @tf.function(autograph=False)
    def function(distribution, z):
        return (
            distribution.log_prob(z)
            if method == "log_prob"
            else distribution.sample(num_samples, seed=(1, 2))
        )

    graph = function.get_concrete_function(distribution, tf.TensorSpec([num_samples, D])).graph
    sizes = [
        t.shape.num_elements() or 0
        for op in graph.get_operations()
        for t in op.outputs
        if t.shape.rank is not None
    ]
    assert max(sizes) < num_samples * num_components * D
    assert max(sizes) >= num_samples * D  # the shapes were known at all
