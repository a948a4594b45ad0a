"""Likelihoods p(x | z): layers that turn a decoder's raw output into a distribution over images."""

from __future__ import annotations

import math
from typing import ClassVar

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.distribution_layer import DistributionLayer, TravellingDistribution, travels
from tfvamp.layers.gaussian import at_least_float32

FACTORS = 64  # each between 1 and 2, so that their product is below 2^64
PROBABILITY_CLIP = 1e-5  # the paper's code clamps probabilities to [1e-5, 1 - 1e-5]


class PhiloxBernoulli(tfd.Bernoulli):
    """A `tfd.Bernoulli` that draws from Philox bits: the same samples eagerly, in a graph and under XLA."""

    def _sample_n(self, n, seed):
        shape = tf.concat([[n], tf.shape(self.logits)], axis=0)
        return self.at_uniform(seeds.uniform(shape, tfp.random.sanitize_seed(seed), self.logits.dtype))

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns inverse-CDF samples at numbers uniform in (0, 1): 1 where the number is below the probability."""
        return tf.cast(uniform < tf.sigmoid(self.logits), self.dtype)


@travels
class BernoulliImages(TravellingDistribution, tfd.Independent):
    """Independent Bernoulli pixels, with log p(x) = sum of x logits - softplus(logits); see `log_prob_of_pixels`.

    Args:
      distribution: `PhiloxBernoulli` with logits [..., H, W, C].
      reinterpreted_batch_ndims: 3, the number of event axes, as in `tfd.Independent`.
    """

    def tensors(self):
        return (self.distribution.logits,)

    @classmethod
    def from_tensors(cls, logits):
        return cls(PhiloxBernoulli(logits, dtype=logits.dtype), reinterpreted_batch_ndims=3)

    def _log_prob(self, x):
        logits = self.distribution.logits
        return log_prob_of_pixels(tf.cast(of_event(x, self.event_shape), logits.dtype), logits)

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns images [..., H, W, C], inverse-CDF samples at numbers uniform in (0, 1)."""
        return self.distribution.at_uniform(uniform)


def of_event(x, event_shape: tf.TensorShape) -> tf.Tensor:
    """Returns the data x [..., *event] unchanged, after checking their shape.

    TFP would broadcast data of another shape, and so sum over pixels that the data do not have.

    Raises:
      ValueError: the last axes of x are not the event shape.
    """
    x = tf.convert_to_tensor(x)
    rank = event_shape.rank
    if x.shape.rank is not None and (
        x.shape.rank < rank or not event_shape.is_compatible_with(x.shape[x.shape.rank - rank :])
    ):
        raise ValueError(
            f"the data must have the shape [..., {', '.join(map(str, event_shape))}] of the distribution's events; "
            f"got {list(x.shape)}"
        )
    return x


@tf.custom_gradient
def log_prob_of_pixels(x: tf.Tensor, logits: tf.Tensor):
    """Returns the sums of x logits - softplus(logits) over images [..., H, W, C].

    It takes one logarithm per `FACTORS` pixels: softplus(l) = max(l, 0) + log(1 + exp(-|l|)), and
    the product of that many numbers between 1 and 2 is far from overflow. This halves the time of
    the sum under XLA.
    """
    count = math.prod(logits.shape[-3:])
    factors = max(size for size in range(1, FACTORS + 1) if count % size == 0)
    linear = x * logits - tf.nn.relu(logits)
    groups = tf.concat([tf.shape(logits)[:-3], [count // factors, factors]], axis=0)
    product = tf.reduce_prod(tf.reshape(1.0 + tf.exp(-tf.abs(logits)), groups), axis=-1)
    result = sum_over_images(linear) - tf.reduce_sum(tf.math.log(product), axis=-1)

    def gradient(upstream):
        upstream = upstream[..., tf.newaxis, tf.newaxis, tf.newaxis]
        return (
            _summed_to(upstream * logits, x),
            _summed_to(upstream * (x - tf.sigmoid(logits)), logits),
        )

    return result, gradient


def _summed_to(gradient: tf.Tensor, broadcast: tf.Tensor) -> tf.Tensor:
    """Returns a gradient summed over the axes along which its tensor was broadcast."""
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(broadcast), s1=tf.shape(gradient))
    return tf.reshape(tf.reduce_sum(gradient, axis=axes), tf.shape(broadcast))


def sum_over_images(values: tf.Tensor) -> tf.Tensor:
    """Returns the sums of [..., H, W, C] over each image; flattened, as XLA sums three axes at a third of the speed."""
    flat = tf.concat([tf.shape(values)[:-3], [math.prod(values.shape[-3:])]], axis=0)
    return tf.reduce_sum(tf.reshape(values, flat), axis=-1)


class LikelihoodLayer(DistributionLayer):
    """A layer that turns a decoder's raw output into p(x | z).

    Subclasses name their `heads`, and define the distributions for raw pixels and raw images.

    Args:
      event_shape: shape of one image, (H, W, C); likelihoods that say so also take other events.

    Attributes:
      heads: names of the output layers that a decoder has, one per parameter of a pixel.
      autoregressive_bias: whether the heads of an autoregressive decoder have a bias. It depends on
        the likelihood, because it does so in the paper's code: PixelHVAE's heads have a bias for
        binary images and none for grey ones, while the heads of all other decoders have one.

    Call: raw [..., heads * H * W * C], head after head -> a distribution with event shape [H, W, C].

    >>> BernoulliLikelihood.heads
    ('pixels',)
    """

    heads: ClassVar[tuple[str, ...]]
    autoregressive_bias: ClassVar[bool] = True
    event_ranks: ClassVar[dict[int, str]] = {3: "(H, W, C)"}

    def __init__(self, event_shape, **kwargs):
        super().__init__(**{"dtype": at_least_float32(keras.config.floatx()), **kwargs})
        self.event_shape = tuple(int(size) for size in event_shape)
        if len(self.event_shape) not in self.event_ranks:
            raise ValueError(
                f"event_shape must be {' or '.join(self.event_ranks.values())}; got {self.event_shape}"
            )

    def of_pixels(self, *raw: tf.Tensor) -> tfd.Distribution:
        """Returns the distribution of pixels of any shape, given one tensor of that shape per head."""
        raise NotImplementedError  # each subclass has its own

    def of_images(self, *raw: tf.Tensor) -> tfd.Distribution:
        """Returns the distribution of images, given one tensor [..., H, W, C] per head."""
        raise NotImplementedError  # each subclass has its own

    def call(self, raw):
        shape = tf.concat([tf.shape(raw)[:-1], self.event_shape], axis=0)
        return self.of_images(*(tf.reshape(head, shape) for head in tf.split(raw, len(self.heads), axis=-1)))

    def get_config(self):
        return {**super().get_config(), "event_shape": self.event_shape}


@keras.saving.register_keras_serializable(package="tfvamp")
class BernoulliLikelihood(LikelihoodLayer):
    """A likelihood of independent Bernoulli pixels, given their logits.

    Args:
      event_shape: shape of one image, (H, W, C).
      clip: the bound c that keeps probabilities in [c, 1 - c], as the paper's code does with 1e-5
        (clipped pixels have no gradient); None for no clipping.

    Call: logits [..., H * W * C] -> `tfd.Independent` with event shape [H, W, C].

    >>> likelihood = BernoulliLikelihood((28, 28, 1))(tf.zeros([5, 784]))
    >>> likelihood.batch_shape, likelihood.event_shape
    (TensorShape([5]), TensorShape([28, 28, 1]))
    """

    heads = ("pixels",)

    def __init__(self, event_shape, clip: float | None = None, **kwargs):
        super().__init__(event_shape, **kwargs)
        if clip is not None and not 0.0 < clip < 0.5:
            raise ValueError(f"clip must lie between 0 and 0.5; got {clip}")
        self.clip = clip

    def clipped(self, logits):
        if self.clip is None:
            return logits
        bound = math.log1p(-self.clip) - math.log(self.clip)
        return tf.clip_by_value(logits, -bound, bound)

    def of_pixels(self, logits):
        return PhiloxBernoulli(self.clipped(logits), dtype=logits.dtype)

    def of_images(self, logits):
        return BernoulliImages.from_tensors(self.clipped(logits))

    def get_config(self):
        return {**super().get_config(), "clip": self.clip}
