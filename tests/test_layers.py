"""The contract of every public layer: a config that gives it back, gradients, files, batches of any size."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvamp.layers
import tfvamp.networks.mlp
from tfvamp.layers import BernoulliLikelihood, GatedDense, GaussianPosterior, PriorLayer
from tfvamp.networks.mlp import MLPDecoder, MLPEncoder

SHAPE, D = (4, 3, 1), 2
# name: how to make it, the shape of one input. Priors have a suite of their own (test_priors.py).
CASES = {
    "GatedDense": (lambda: GatedDense(5), (7,)),
    "GaussianPosterior": (lambda: GaussianPosterior(D), (7,)),
    "BernoulliLikelihood": (lambda: BernoulliLikelihood(SHAPE, clip=1e-3), (12,)),
    "MLPEncoder": (lambda: MLPEncoder(SHAPE, D, 8), SHAPE),
    "MLPDecoder": (lambda: MLPDecoder(BernoulliLikelihood(SHAPE), SHAPE, D, 8), (D,)),
}


def output(layer, x):
    """A tensor that depends on all that the layer gives."""
    result = layer(x)
    return result if tf.is_tensor(result) else tf.concat([result.mean(), result.variance()], axis=-1)


@pytest.fixture(params=CASES)
def case(request):
    keras.utils.set_random_seed(0)
    make, shape = CASES[request.param]
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    layer = make()
    layer(x)
    return layer, x


def test_every_public_layer_has_a_case():
    public = [getattr(tfvamp.layers, name) for name in tfvamp.layers.__all__]
    public += [value for value in vars(tfvamp.networks.mlp).values() if inspect.isclass(value)]
    layers = {c.__name__ for c in public if inspect.isclass(c) and issubclass(c, keras.layers.Layer)}
    priors = {c.__name__ for c in public if inspect.isclass(c) and issubclass(c, PriorLayer)}
    assert layers - priors == set(CASES)


def test_config_gives_the_layer_back(case):
    layer, x = case
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    copy(x)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(output(copy, x), output(layer, x))


def test_every_variable_gets_a_finite_gradient_that_is_not_zero(case):
    layer, x = case
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(output(layer, x) ** 2)
    for variable, gradient in zip(
        layer.trainable_variables, tape.gradient(loss, layer.trainable_variables), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, (
            variable.path
        )


def test_a_batch_of_unknown_size(case):
    layer, x = case
    function = tf.function(lambda x: output(layer, x), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec([None, *x.shape[1:]]))
    for count in (1, 6):
        np.testing.assert_allclose(
            concrete(tf.constant(x[:count])), output(layer, x[:count]), rtol=1e-5, atol=1e-6
        )


def test_batches_do_not_mix(case):
    layer, x = case
    np.testing.assert_allclose(output(layer, x)[2:3], output(layer, x[2:3]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("leading", [(), (5,), (5, 2)])
def test_decoders_take_any_leading_dimensions(leading):
    decoder = CASES["MLPDecoder"][0]()
    z = np.random.default_rng(0).normal(size=(*leading, D)).astype(np.float32)
    likelihood = decoder(z)
    assert likelihood.batch_shape == leading and likelihood.event_shape == SHAPE
    assert likelihood.log_prob(np.zeros(SHAPE, np.float32)).shape == leading
    assert likelihood.sample(3, seed=(1, 2)).shape == (3, *leading, *SHAPE)
