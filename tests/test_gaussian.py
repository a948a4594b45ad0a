"""Diagonal normals and the layer that makes them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import twins
from tfvamp.layers import DiagonalGaussian, GatedDense, GaussianPosterior, as_diagonal_gaussian


def gaussian(batch=(7,), dims=4, seed=0):
    rng = np.random.default_rng(seed)
    loc = rng.normal(size=(*batch, dims)).astype(np.float32)
    log_variance = rng.uniform(-6, 2, size=(*batch, dims)).astype(np.float32)
    return DiagonalGaussian(loc, log_variance), loc, log_variance


def test_density_equals_twin_and_tfp():
    q, loc, log_variance = gaussian()
    z = q.sample(50, seed=(1, 2))
    np.testing.assert_allclose(
        q.log_prob(z), twins.diagonal_gaussian_log_prob(z, loc, log_variance), rtol=1e-5, atol=1e-5
    )
    plain = tfd.MultivariateNormalDiag(loc, np.exp(0.5 * log_variance))
    np.testing.assert_allclose(q.log_prob(z), plain.log_prob(z), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(q.kl_divergence(plain), np.zeros(7), atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "mode", "stddev", "variance", "covariance", "entropy"])
def test_moments_equal_those_of_tfp(method):
    q, loc, log_variance = gaussian()
    plain = tfd.MultivariateNormalDiag(loc, np.exp(0.5 * log_variance))
    ours, theirs = getattr(q, method)(), getattr(plain, method)()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(q.scale.to_dense(), plain.scale.to_dense(), rtol=1e-5)


def test_divergences_equal_those_of_tfp():
    ours, theirs = [], []
    for seed in (0, 1):
        q, loc, log_variance = gaussian(seed=seed)
        ours.append(q)
        theirs.append(tfd.MultivariateNormalDiag(loc, np.exp(0.5 * log_variance)))
    expected = tfd.kl_divergence(*theirs)
    for a, b in ((ours[0], ours[1]), (ours[0], theirs[1]), (theirs[0], ours[1])):
        np.testing.assert_allclose(tfd.kl_divergence(a, b), expected, rtol=1e-4)
    correlated = tfd.MultivariateNormalTriL(tf.zeros([4]), tf.linalg.band_part(tf.ones([4, 4]), -1, 0))
    np.testing.assert_allclose(
        ours[0].kl_divergence(correlated), theirs[0].kl_divergence(correlated), rtol=1e-4
    )


@pytest.mark.parametrize("shapes", [([4], [7, 4]), ([7, 4], [4]), ([7, 4], [7, 1]), ([2, 1, 4], [7, 4])])
def test_mean_and_log_variance_are_broadcast(shapes):
    loc, log_variance = (tf.random.stateless_normal(shape, (0, 1)) for shape in shapes)
    whole = tf.broadcast_static_shape(loc.shape, log_variance.shape)
    q = DiagonalGaussian(loc, log_variance)
    assert q.batch_shape == whole[:-1] and q.event_shape == [4]
    for value in (q.mean(), q.variance(), q.sample(seed=(1, 2))):
        assert value.shape == whole
    noise = (q.sample(seed=(1, 2)) - loc) / tf.exp(0.5 * log_variance)
    assert len(np.unique(noise)) == whole.num_elements(), "each latent has a draw of its own"
    with pytest.raises(ValueError, match="[Ii]ncompatible shapes"):
        DiagonalGaussian(tf.zeros([3]), tf.zeros([4]))


@pytest.mark.parametrize("jit", [False, True])
def test_it_comes_out_of_a_compiled_function(jit):
    _, loc, log_variance = gaussian()
    made = tf.function(DiagonalGaussian, jit_compile=jit)(loc, log_variance)
    assert isinstance(made, DiagonalGaussian)
    np.testing.assert_array_equal(made.loc, loc)
    np.testing.assert_array_equal(made.log_variance, log_variance)
    unknown = tf.function(
        lambda m, v: DiagonalGaussian(m, v).sample(2, seed=(1, 2)),
        input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec(None)],
        jit_compile=jit,
    )
    np.testing.assert_allclose(unknown(loc, log_variance), made.sample(2, seed=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("batch", [(), (7,), (2, 7)])
def test_sample_shapes(shape, batch):
    q, _, _ = gaussian(batch)
    assert q.sample(shape, seed=(1, 2)).shape == (*shape, *batch, 4)
    assert q.log_prob(q.sample(shape, seed=(1, 2))).shape == (*shape, *batch)
    assert q.event_shape == (4,) and q.batch_shape == batch


def test_samples_are_reparameterised():
    _, loc, log_variance = gaussian()
    with tf.GradientTape() as tape:
        loc, log_variance = tf.constant(loc), tf.constant(log_variance)
        tape.watch([loc, log_variance])
        z = DiagonalGaussian(loc, log_variance).sample(seed=(1, 2))
        total = tf.reduce_sum(z)
    d_loc, d_log_variance = tape.gradient(total, [loc, log_variance])
    np.testing.assert_allclose(d_loc, np.ones((7, 4)))
    np.testing.assert_allclose(d_log_variance, 0.5 * (z - loc), rtol=1e-5, atol=1e-6)


def test_slicing_and_copying_keep_parameters():
    q, loc, log_variance = gaussian()
    np.testing.assert_array_equal(q[2:4].log_variance, log_variance[2:4])
    np.testing.assert_array_equal(q.copy(loc=loc + 1).loc, loc + 1)


@pytest.mark.parametrize(
    "output",
    [
        lambda m, v: DiagonalGaussian(m, v),
        lambda m, v: (m, v),
        lambda m, v: [m, v],
        lambda m, v: (m, v, m),
        lambda m, v: tfd.MultivariateNormalDiag(m, tf.exp(0.5 * v)),
        lambda m, v: tfd.Independent(tfd.Normal(m, tf.exp(0.5 * v)), 1),
    ],
)
def test_readable_encoder_outputs(output):
    _, loc, log_variance = gaussian()
    q = as_diagonal_gaussian(output(tf.constant(loc), tf.constant(log_variance)))
    np.testing.assert_array_equal(q.loc, loc)
    np.testing.assert_allclose(q.log_variance, log_variance, atol=1e-6)


@pytest.mark.parametrize(
    "output, found",
    [
        (lambda: tfd.Normal(tf.zeros([2, 3]), 1.0), "Normal"),
        (lambda: tf.zeros([2, 5]), r"EagerTensor \(2, 5\)"),
        (lambda: (tf.zeros([2, 3]), tf.zeros([2, 4])), r"\(2, 3\).*\(2, 4\)"),
        (lambda: (tf.zeros([2, 3]),), "tuple of"),
        (lambda: tfd.MultivariateNormalTriL(tf.zeros([2]), tf.eye(2)), "MultivariateNormalTriL"),
        (lambda: None, "NoneType"),
    ],
)
def test_unreadable_encoder_outputs(output, found):
    with pytest.raises(TypeError, match=rf"the encoder must return a diagonal normal.*got.*{found}"):
        as_diagonal_gaussian(output())


def test_half_precision_becomes_float32():
    q = as_diagonal_gaussian((tf.zeros([2, 3], tf.float16), tf.zeros([2, 3], tf.float16)))
    assert q.dtype == tf.float32
    half = tfd.MultivariateNormalDiag(tf.zeros([2, 3], tf.float16), tf.ones([2, 3], tf.float16))
    assert as_diagonal_gaussian(half).dtype == tf.float32
    assert as_diagonal_gaussian(DiagonalGaussian(*[tf.zeros([2, 3], tf.float16)] * 2)).dtype == tf.float32


def test_posterior_clips_the_log_variance_without_gradient_outside():
    layer = GaussianPosterior(3)
    features = tf.constant([[1e3, -1e3], [0.01, 0.02]])
    layer(features)
    layer.log_variance.kernel.assign(np.full((2, 3), [[1.0], [-1.0]]))
    layer.log_variance.bias.assign(np.zeros(3))
    with tf.GradientTape() as tape:
        tape.watch(features)
        q = layer(features)
        total = tf.reduce_sum(q.log_variance)
    np.testing.assert_allclose(q.log_variance[0], 2.0)
    gradient = tape.gradient(total, features)
    np.testing.assert_array_equal(gradient[0], 0.0)
    np.testing.assert_array_equal(gradient[1], [3.0, -3.0])


def test_gated_dense_equals_its_twin():
    layer = GatedDense(6)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    y = layer(x)
    weights = {v.name: v.numpy() for v in layer.weights}
    expected = twins.gated_dense(
        x, *(weights[f"{p}_{k}"] for p in ("value", "gate") for k in ("kernel", "bias"))
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert len(layer.trainable_variables) == 4
    with pytest.raises(ValueError, match="units must be at least 1; got 0"):
        GatedDense(0)


def test_initial_weights_have_the_papers_spread():
    keras.utils.set_random_seed(0)
    layer = GatedDense(2000)
    layer.build((None, 300))
    kernel, bias = layer.value_kernel.numpy(), layer.gate_bias.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / 300), rel=0.01)
    assert np.abs(kernel).max() > 3 * np.sqrt(2 / 300)  # not truncated at two deviations
    assert np.abs(bias).max() <= 1 / np.sqrt(300) and bias.std() == pytest.approx(1 / np.sqrt(900), rel=0.1)
