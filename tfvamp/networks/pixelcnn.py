"""The autoregressive decoder of PixelHVAE: p(x | z) = prod_i p(x_i | x_1 .. x_{i-1}, z), in raster order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.gaussian import at_least_float32
from tfvamp.layers.likelihoods import of_event
from tfvamp.layers.masked_conv import MaskedConv2D
from tfvamp.networks.base import DecoderNetwork, rows

FILTERS, NUM_LAYERS, KERNEL_SIZE = 64, 8, 3
FEATURES_PER_PIXEL = (
    2 * FILTERS
)  # of a layer and the one before it; limits how many images are decoded at a time
MOMENTUM, EPSILON = 0.9, 1e-5  # of batch normalisation, as in PyTorch


class AutoregressiveImages(tfd.Distribution):
    """Images in which each pixel, and each channel within a pixel, depends on those before it.

    The distribution has no mean in closed form. Samples are drawn pixel by pixel.

    Args:
      decoder: the `PixelDecoder` that has the network.
      conditions: the maps of the latents, [..., H, W, 2 C].
      training: whether batch normalisation uses the batch's moments.
    """

    def __init__(
        self, decoder: PixelDecoder, conditions, training: bool = False, name="AutoregressiveImages"
    ):
        parameters = dict(locals())
        self.decoder, self.conditions, self.training = decoder, conditions, training
        super().__init__(
            dtype=at_least_float32(decoder.variable_dtype),
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self):
        return self.conditions.shape[:-3]

    def _batch_shape_tensor(self):
        return tf.shape(self.conditions)[:-3]

    def _event_shape(self):
        return tf.TensorShape(self.decoder.event_shape)

    def _event_shape_tensor(self):
        return tf.constant(self.decoder.event_shape, tf.int32)

    def pixels(self, x) -> tfd.Distribution:
        """Returns the distribution of each pixel of x [..., H, W, C] given those before it, as if independent."""
        shape = tf.concat([self.batch_shape_tensor(), self.decoder.event_shape], axis=0)
        x = tf.cast(of_event(x, self.event_shape), self.dtype)
        x = tf.broadcast_to(x, tf.broadcast_dynamic_shape(shape, tf.shape(x)))
        conditions = tf.broadcast_to(
            self.conditions, tf.concat([tf.shape(x)[:-1], tf.shape(self.conditions)[-1:]], axis=0)
        )
        heads = self.decoder.raw(_images(x), _images(conditions), self.training)
        return self.decoder.images(heads, tf.shape(x)[:-3])

    def _log_prob(self, x):
        return self.pixels(x).log_prob(x)

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns images [..., H, W, C], inverse-CDF samples at numbers uniform in (0, 1)."""
        conditions = tf.broadcast_to(
            self.conditions, tf.concat([tf.shape(uniform)[:-1], tf.shape(self.conditions)[-1:]], axis=0)
        )
        uniform = tf.cast(uniform, tf.float32)
        images = self.decoder.compiled_draw(_images(conditions), _images(uniform))
        images = tf.cast(images, self.dtype)
        return tf.ensure_shape(tf.reshape(images, tf.shape(uniform)), uniform.shape)

    def _sample_n(self, n, seed):
        shape = tf.concat([[n], self.batch_shape_tensor(), self.decoder.event_shape], axis=0)
        return self.at_uniform(seeds.uniform(shape, tfp.random.sanitize_seed(seed)))


@keras.saving.register_keras_serializable(package="tfvamp")
class PixelDecoder(DecoderNetwork):
    """p(x | z1, z2): z1 and z2 are mapped to image-sized maps, which enter eight masked convolutions together with x.

    See Tomczak and Welling (2018), appendix. Each 3x3 convolution of 64 features (the first with
    mask A) is followed by batch normalisation and ReLU. A 1x1 convolution makes the raw output,
    with a bias if the likelihood says so (`autoregressive_bias`: for binary images, not for grey
    ones).

    A pixel sees the maps of the latents all around it and around the pixels that it depends on,
    which are at most eight rows above it and eight columns to the left. The channels of a pixel are
    ordered. The paper's code instead masks the maps as if they were pixels, and takes the channels
    of a pixel as independent.

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, the same for z1 and z2.
      hidden_units: not used here; all networks of a model take the same arguments.

    Call: z2 [..., D] and z1 [..., D] -> `AutoregressiveImages`, batch shape [...], event shape [H, W, C].
    """

    travels = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        size, channels = math.prod(self.event_shape), self.event_shape[-1]
        self.gated_z1, self.gated_z2 = self.gated("gated_z1", size), self.gated("gated_z2", size)
        options = {"channels": channels, "dtype": self.dtype_policy}
        self.convolutions = [
            MaskedConv2D(
                max(FILTERS, channels),
                KERNEL_SIZE,
                strict=index == 1,
                num_conditions=2 * channels if index == 1 else 0,
                name=f"conv_{index}",
                **options,
            )
            for index in range(1, NUM_LAYERS + 1)
        ]
        self.normalizations = [
            keras.layers.BatchNormalization(
                momentum=MOMENTUM, epsilon=EPSILON, name=f"normalization_{index}", dtype=self.dtype_policy
            )
            for index in range(1, NUM_LAYERS + 1)
        ]
        self.heads = [
            MaskedConv2D(channels, 1, use_bias=self.likelihood.autoregressive_bias, name=head, **options)
            for head in self.likelihood.heads
        ]

        self.compiled_draw = tf.function(self.draw, autograph=False, reduce_retracing=True)

    def build(self, z2_shape, z1_shape):
        self.gated_z1.build((None, self.latent_dims))
        self.gated_z2.build((None, self.latent_dims))
        shape: tuple = (None, *self.event_shape[:2], 3 * self.event_shape[-1])
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            normalization.build(shape)
        for head in self.heads:
            head.build(shape)

    def call(self, z2, z1, training=False):
        leading = tf.shape(z1)[:-1]
        maps = [
            tf.reshape(layer(rows(z, 1)), tf.concat([leading, self.event_shape], axis=0))
            for layer, z in ((self.gated_z1, z1), (self.gated_z2, z2))
        ]
        return AutoregressiveImages(self, tf.concat(maps, axis=-1), training)

    def raw(self, x, conditions, training: bool = False) -> list[tf.Tensor]:
        """Returns the outputs of the heads, [R, H, W, C] each, for images x [R, H, W, C] and conditions [R, H, W, 2 C]."""
        maps = tf.concat([tf.cast(x, self.compute_dtype), tf.cast(conditions, self.compute_dtype)], axis=-1)
        for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True):
            maps = tf.nn.relu(normalization(convolution(maps), training=training))
        return [head(maps) for head in self.heads]

    def draw(self, conditions, uniform) -> tf.Tensor:
        """Returns images [R, H, W, C] drawn pixel by pixel, from conditions [R, H, W, 2 C] and uniform [R, H, W, C]."""
        layers = [
            _taps(convolution, normalization)
            for convolution, normalization in zip(self.convolutions, self.normalizations, strict=True)
        ]
        heads = [_head(head) for head in self.heads]

        def pixel(features: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
            raw = [tf.matmul(features, kernel) + bias for kernel, bias in heads]
            return self.likelihood.of_pixels(*raw).at_uniform(uniform)

        return _draw(layers, pixel, tf.cast(conditions, tf.float32), uniform)


def _head(head: MaskedConv2D) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns kernel [F, C] and bias [C] of a 1x1 convolution, in float32; the bias is 0 if there is none."""
    kernel = tf.cast(head.masked_kernel()[0, 0], tf.float32)
    if not head.use_bias:
        return kernel, tf.zeros([head.filters])
    return kernel, tf.cast(tf.cast(tf.convert_to_tensor(head.bias), head.compute_dtype), tf.float32)


class _Taps(NamedTuple):
    """A 3x3 masked convolution and the batch normalisation after it, split up to compute one pixel at a time.

    Attributes:
      above: kernel [3 I, F] for the three pixels above, from left to right.
      beside: kernel [2 I, F] for the pixel to the left and the pixel itself.
      conditions: kernel [3, 3, N, F] for the conditions.
      shift: [F], added to the result.
    """

    above: tf.Tensor
    beside: tf.Tensor
    conditions: tf.Tensor
    shift: tf.Tensor

    @property
    def inputs(self) -> int:
        """The number I of features that it takes."""
        return self.beside.shape[0] // 2


def _taps(convolution: MaskedConv2D, normalization: keras.layers.BatchNormalization) -> _Taps:
    kernel = tf.cast(convolution.masked_kernel(), tf.float32)
    mean, variance, gamma, beta = (
        tf.cast(tf.convert_to_tensor(weight), tf.float32)
        for weight in (
            normalization.moving_mean,
            normalization.moving_variance,
            normalization.gamma,
            normalization.beta,
        )
    )
    scale = gamma * tf.math.rsqrt(variance + normalization.epsilon)
    kernel = kernel * scale
    inputs = kernel.shape[2] - convolution.num_conditions
    ordered = kernel[:, :, :inputs]
    return _Taps(
        above=tf.reshape(ordered[0], [3 * inputs, -1]),
        beside=tf.reshape(ordered[1, :2], [2 * inputs, -1]),
        conditions=kernel[:, :, inputs:],
        shift=beta - mean * scale,
    )


def _draw(layers: list[_Taps], pixel: Callable, conditions: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Draws images row by row and pixel by pixel, computing each feature of each layer once.

    What a row takes from the row above is one matrix product for the whole row. A pixel then needs,
    in each layer, one product with its own features and those to its left. This is 1 / (H W) of the
    arithmetic of running the network once for each pixel. An image of C channels takes C passes per
    pixel.

    Args:
      layers: layers from the image up.
      pixel: a function from features [R, F] and uniform numbers [R, C] to all channels [R, C] of a
        pixel.
      conditions: [R, H, W, N].
      uniform: uniform numbers [R, H, W, C].
    """
    height, width, channels = uniform.shape.as_list()[1:]
    first = tf.nn.conv2d(conditions, layers[0].conditions, 1, "SAME") + layers[0].shift
    first, numbers = tf.transpose(first, [1, 2, 0, 3]), tf.transpose(uniform, [1, 2, 0, 3])  # [H, W, R, .]
    maps = [tf.TensorShape([width, None, layer.inputs]) for layer in layers]

    def body(row, before, images):
        before = _draw_row(layers, pixel, before, first[row], numbers[row])
        return row + 1, before, images.write(row, before[0])

    count = tf.shape(uniform)[0]
    outside = [tf.zeros([width, count, layer.inputs]) for layer in layers]
    images = tf.TensorArray(tf.float32, height, element_shape=[width, None, channels])
    _, _, images = tf.while_loop(
        lambda row, *_: row < height,
        body,
        (tf.constant(0), outside, images),
        shape_invariants=(tf.TensorShape([]), maps, tf.TensorShape(None)),
        parallel_iterations=1,
        maximum_iterations=height,
    )
    return tf.transpose(images.stack(), [2, 0, 1, 3])


def _draw_row(layers: list[_Taps], pixel: Callable, before, first, uniform) -> list[tf.Tensor]:
    """Returns the inputs of each layer in one row, [W, R, I] each, the pixels themselves first.

    It takes `before`, the same of the row above; `first` [W, R, F], from the conditions; and
    `uniform` [W, R, C].
    """
    width = uniform.shape[0]
    shifts = [first, *(layer.shift for layer in layers[1:])]
    above = [
        _above(values, layer.above) + shift
        for values, layer, shift in zip(before, layers, shifts, strict=True)
    ]

    def body(column, left, taken):
        values = _draw_pixel(layers, pixel, left, [over[column] for over in above], uniform[column])
        return column + 1, values, [array.write(column, v) for array, v in zip(taken, values, strict=True)]

    outside = [tf.zeros([tf.shape(uniform)[1], layer.inputs]) for layer in layers]
    taken = [tf.TensorArray(tf.float32, width, element_shape=[None, layer.inputs]) for layer in layers]
    _, _, taken = tf.while_loop(
        lambda column, *_: column < width,
        body,
        (tf.constant(0), outside, taken),
        shape_invariants=(
            tf.TensorShape([]),
            [tf.TensorShape([None, layer.inputs]) for layer in layers],
            [tf.TensorShape(None)] * len(layers),
        ),
        parallel_iterations=1,
        maximum_iterations=width,
    )
    return [
        tf.ensure_shape(array.stack(), [width, None, layer.inputs])
        for array, layer in zip(taken, layers, strict=True)
    ]


def _draw_pixel(layers: list[_Taps], pixel: Callable, left, above, uniform) -> list[tf.Tensor]:
    """Returns the inputs of each layer at one pixel, [R, I] each, the pixel itself first.

    It takes `left`, the same of the pixel before; `above` [R, F] for each layer; and `uniform` [R,
    C].
    """
    x = tf.zeros_like(uniform)
    values = [x]
    for channel in range(uniform.shape[-1]):
        values = [x]
        for layer, beside, over in zip(layers, left, above, strict=True):
            both = tf.concat([beside, values[-1]], axis=-1)
            values.append(tf.nn.relu(tf.matmul(both, layer.beside) + over))
        chosen = pixel(values[-1], uniform)
        x = tf.concat([x[:, :channel], chosen[:, channel : channel + 1], x[:, channel + 1 :]], axis=-1)
    return [x, *values[1:-1]]


def _above(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the contribution of a row [W, R, I] to the row below, [W, R, F]."""
    padded = tf.pad(values, [[1, 1], [0, 0], [0, 0]])
    width = values.shape[0]
    taps = tf.concat([padded[:width], padded[1 : width + 1], padded[2:]], axis=-1)  # [W, R, 3 I]
    flat = tf.matmul(tf.reshape(taps, [-1, taps.shape[-1]]), kernel)
    return tf.reshape(flat, tf.concat([tf.shape(values)[:2], [kernel.shape[-1]]], axis=0))


def _images(values) -> tf.Tensor:
    """Returns [..., H, W, C] reshaped to [R, H, W, C]."""
    return tf.reshape(values, tf.concat([[-1], tf.shape(values)[-3:]], axis=0))
