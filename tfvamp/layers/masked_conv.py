"""Masked convolutions: a pixel depends only on what comes before it (van den Oord and others, 2016)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfvamp.layers import initializers


@keras.saving.register_keras_serializable(package="tfvamp")
class MaskedConv2D(keras.layers.Layer):
    """A masked convolution in raster order, whose features are assigned in turn to the channels of an image.

    It has "same" padding. Feature f of F belongs to channel floor(f C / F). It sees all features of
    the pixels above and to the left. At its own pixel, it sees the features of the channels before
    its own (`strict`, mask A), or up to and including its own (mask B). Conditions, which are the
    last features of the input, are seen everywhere that the kernel reaches.

    Args:
      filters: F, number of features of the output.
      kernel_size: height and width of the kernel, odd.
      channels: C, number of channels of an image.
      strict: True for mask A, False for mask B.
      num_conditions: number of the input's last features that are conditions.
      use_bias: whether to add a bias.

    Call: [B, H, W, features + num_conditions] -> [B, H, W, filters].

    >>> MaskedConv2D(filters=4, kernel_size=3, strict=True)(tf.zeros([1, 8, 8, 1])).shape
    TensorShape([1, 8, 8, 4])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        channels: int = 1,
        strict: bool = False,
        num_conditions: int = 0,
        use_bias: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd; got {kernel_size}")
        if not 1 <= channels <= filters:
            raise ValueError(
                f"each of the {channels} channels of an image needs a filter; got {filters} filters"
            )
        self.filters, self.kernel_size, self.channels = int(filters), int(kernel_size), int(channels)
        self.strict, self.num_conditions, self.use_bias = bool(strict), int(num_conditions), bool(use_bias)

    def build(self, input_shape):
        size, features = self.kernel_size, int(input_shape[-1])
        if features - self.num_conditions < self.channels:
            raise ValueError(
                f"the input must have a feature for each of {self.channels} channels, and {self.num_conditions} "
                f"conditions; got {features} features"
            )
        fan_in = size * size * features
        self.mask = self._mask(features)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(size, size, features, self.filters),
            initializer=initializers.fan_in_uniform(fan_in),
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=initializers.fan_in_uniform(fan_in)
            )

    def _mask(self, features: int) -> np.ndarray:
        """Returns the mask [kernel_size, kernel_size, features, filters], 1 where the kernel is used."""
        ordered, centre = features - self.num_conditions, self.kernel_size // 2
        channel_in = np.arange(ordered) * self.channels // ordered
        channel_out = np.arange(self.filters) * self.channels // self.filters
        mask = np.zeros((self.kernel_size, self.kernel_size, features, self.filters), np.float32)
        mask[:centre], mask[centre, :centre] = 1.0, 1.0
        compare = np.less if self.strict else np.less_equal
        mask[centre, centre, :ordered] = compare(channel_in[:, np.newaxis], channel_out)
        mask[:, :, ordered:] = 1.0
        return mask

    def masked_kernel(self) -> tf.Tensor:
        """Returns the kernel with zeros where the mask has them, in the layer's compute dtype."""
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        return kernel * tf.constant(self.mask, kernel.dtype)

    def call(self, inputs):
        kernel, reach = self.masked_kernel(), self.kernel_size // 2
        # Only conditions use the rows below the centre; without them, a 3x3 kernel takes a third less work.
        below = reach if self.num_conditions else 0
        padding = [[0, 0], [reach, below], [reach, reach], [0, 0]]
        features = tf.nn.conv2d(inputs, kernel[: reach + 1 + below], 1, padding)
        return features + tf.convert_to_tensor(self.bias) if self.use_bias else features

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        config = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "channels": self.channels,
            "strict": self.strict,
            "num_conditions": self.num_conditions,
            "use_bias": self.use_bias,
        }
        return {**super().get_config(), **config}
