"""The gated layers of the paper's networks: h = (W x + b) * sigmoid(V x + c), dense or convolutional."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import initializers


class _Gated(keras.layers.Layer):
    """A pair of value and gate, held in separate variables but computed in one product.

    The variables are separate because the optimiser normalises the gradient of each.
    """

    def add_pair(self, kernel_shape: tuple[int, ...], kernel_initializer) -> None:
        """Adds the kernels [..., in, out] and the biases [out] of value and gate."""
        fan_in = math.prod(kernel_shape[:-1])
        for part in ("value", "gate"):
            kernel = self.add_weight(
                name=f"{part}_kernel", shape=kernel_shape, initializer=kernel_initializer(fan_in)
            )
            bias = self.add_weight(
                name=f"{part}_bias", shape=kernel_shape[-1:], initializer=initializers.fan_in_uniform(fan_in)
            )
            setattr(self, f"{part}_kernel", kernel)
            setattr(self, f"{part}_bias", bias)

    def pair(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the kernels side by side, [..., in, 2 out], and the biases, [2 out]."""
        kernel = tf.concat(
            [tf.convert_to_tensor(self.value_kernel), tf.convert_to_tensor(self.gate_kernel)], axis=-1
        )
        bias = tf.concat(
            [tf.convert_to_tensor(self.value_bias), tf.convert_to_tensor(self.gate_bias)], axis=-1
        )
        return kernel, bias


def _gate(both: tf.Tensor) -> tf.Tensor:
    value, gate = tf.split(both, 2, axis=-1)
    return value * tf.sigmoid(gate)


@keras.saving.register_keras_serializable(package="tfvamp")
class GatedDense(_Gated):
    """A gated dense layer, h = (W x + b) * sigmoid(V x + c): Tomczak and Welling (2018), section 5.

    Args:
      units: width of the output, [..., units].

    >>> GatedDense(units=4)(tf.zeros([2, 3])).shape
    TensorShape([2, 4])
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"units must be at least 1; got {units}")
        self.units = int(units)

    def build(self, input_shape):
        self.add_pair((int(input_shape[-1]), self.units), initializers.he_normal)

    def call(self, inputs):
        kernel, bias = self.pair()
        return _gate(tf.matmul(inputs, kernel) + bias)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tfvamp")
class GatedConv2D(_Gated):
    """A gated convolution, padded as in the paper's code.

    Height and width are padded with kernel_size // 2 zeros before and (kernel_size - 1) // 2 after,
    whatever the stride; for odd kernels, this is PyTorch's padding=kernel_size // 2. TensorFlow's
    "SAME" depends on stride and size: at an even size, a kernel of 3 with stride 2 gets 0 zeros
    before and 1 after, so that every weight meets another pixel.

    Args:
      filters: channels of the output.
      kernel_size: height and width of the kernels.
      strides: 2 halves height and width, rounding up.

    Call: images [B, H, W, C] -> [B, ceil(H / strides), ceil(W / strides), filters].

    >>> GatedConv2D(filters=4, kernel_size=3, strides=2)(tf.zeros([1, 28, 21, 1])).shape
    TensorShape([1, 14, 11, 4])
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        if min(filters, kernel_size, strides) < 1:
            raise ValueError(
                f"filters, kernel_size and strides must be at least 1; got {filters}, {kernel_size} and {strides}"
            )
        self.filters, self.kernel_size, self.strides = int(filters), int(kernel_size), int(strides)

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, int(input_shape[-1]), self.filters)
        self.add_pair(shape, initializers.fan_in_uniform)

    def call(self, inputs):
        kernel, bias = self.pair()
        around = [self.kernel_size // 2, (self.kernel_size - 1) // 2]
        padding = [[0, 0], around, around, [0, 0]]
        return _gate(tf.nn.conv2d(inputs, kernel, self.strides, padding) + bias)

    def compute_output_shape(self, input_shape):
        # A size n is padded to n + k - 1, which has n places for a kernel of k; every stride-th is used.
        height, width = (
            None if size is None else -(-size // self.strides) for size in (input_shape[1], input_shape[2])
        )
        return (input_shape[0], height, width, self.filters)

    def get_config(self):
        sizes = {"filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides}
        return {**super().get_config(), **sizes}
