"""Gated convolutions: their padding and sizes, and the encoders' stacks beside PyTorch's numbers."""

import itertools
import json

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests import make_torch_constants, twins
from tfvamp.layers import GatedConv2D
from tfvamp.networks.conv import ConvEncoder, ConvJointEncoder

SIZES = list(itertools.product((1, 2, 3, 4, 5, 7), (1, 2, 3)))
each_size = pytest.mark.parametrize("kernel_size, strides", SIZES)


def layer_and_weights(kernel_size: int, strides: int) -> tuple[GatedConv2D, dict[str, np.ndarray]]:
    """A layer of float64, on images of two channels."""
    keras.utils.set_random_seed(1)
    layer = GatedConv2D(3, kernel_size, strides, dtype="float64")
    layer.build((None, None, None, 2))
    return layer, {weight.name: weight.numpy() for weight in layer.weights}


@each_size
@pytest.mark.parametrize("size", [(6, 5), (7, 8), (1, 2)], ids=str)
def test_values_and_output_shape(kernel_size, strides, size):
    """Each tap meets the twin's pixel, for odd and even kernels; sizes are rounded up."""
    layer, weights = layer_and_weights(kernel_size, strides)
    x = np.random.default_rng(0).normal(size=(2, *size, 2))
    value, gate = (
        twins.conv2d(x, weights[f"{part}_kernel"], strides) + weights[f"{part}_bias"]
        for part in ("value", "gate")
    )
    found = layer(x)
    assert found.dtype == tf.float64
    np.testing.assert_allclose(found, value * scipy.special.expit(gate), rtol=1e-12, atol=1e-12)
    assert found.shape == layer.compute_output_shape(x.shape) == value.shape
    assert value.shape[1:3] == tuple(int(np.ceil(n / strides)) for n in size)


def test_output_shape_of_unknown_sizes():
    assert GatedConv2D(4, 2, 3).compute_output_shape((None, None, 7, 1)) == (None, None, 3, 4)


@each_size
@pytest.mark.parametrize("jit", [False, True])
def test_gradients_are_those_of_zeros_around_the_images(kernel_size, strides, jit):
    layer, _ = layer_and_weights(kernel_size, strides)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 7, 2)))
    around = [kernel_size // 2, (kernel_size - 1) // 2]

    def padded(x):
        kernel, bias = layer.pair()
        both = tf.nn.conv2d(tf.pad(x, [[0, 0], around, around, [0, 0]]), kernel, strides, "VALID") + bias
        value, gate = tf.split(both, 2, axis=-1)
        return value * tf.sigmoid(gate)

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x) ** 2)
        return tape.gradient(total, [x, *(weight.value for weight in layer.weights)])

    compiled = tf.function(lambda: gradients(layer), jit_compile=jit, autograph=False)
    for found, expected in zip(compiled(), gradients(padded), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


with make_torch_constants.PATH.open() as file:
    TORCH = json.load(file)


@pytest.mark.parametrize("shape", make_torch_constants.SHAPES, ids=str)
@pytest.mark.parametrize("name, kind", [("encoder", ConvEncoder), ("joint_encoder", ConvJointEncoder)])
def test_encoders_equal_pytorch(name, kind, shape):
    """The paper's stacks with the same weights, values and gradients, in float64."""
    network = kind(shape, dtype="float64")
    network.build_stack(network.stack)
    variables = []
    for index, layer in enumerate(network.stack):
        for part in make_torch_constants.PARTS:
            variable = getattr(layer, part)
            variable.assign(make_torch_constants.weights(index, part, tuple(layer.value_kernel.shape)))
            variables.append(variable.value)
    expected = dict(TORCH[f"{name} {'x'.join(map(str, shape))}"])
    x = tf.constant(make_torch_constants.images(shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        features = network.features(network.stack, x)
        loss = 0.5 * tf.reduce_sum(features**2)
    norms = [np.linalg.norm(gradient) for gradient in tape.gradient(loss, [x, *variables])]
    # Sums of some thousand terms in another order: 3e-14 was seen.
    np.testing.assert_allclose(norms, expected.pop("gradient_norms"), rtol=1e-11)
    found = make_torch_constants.summary(features.numpy().reshape(expected["shape"]))
    assert found.keys() == expected.keys() and found["shape"] == expected["shape"]
    for key in ("sum", "norm", "values"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-11)
