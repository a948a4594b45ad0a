"""Grey pixels in 256 bins under a logistic density: the likelihood of the paper's grey images."""

from __future__ import annotations

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.distribution_layer import TravellingDistribution, travels
from tfvamp.layers.likelihoods import LikelihoodLayer, of_event, sum_over_images

BINS = 256
LOC_MARGIN = 1.0 / (2 * BINS)  # the mean of the density is kept in [1/512, 511/512]
LOG_SCALE_RANGE = (-4.5, 0.0)
PROBABILITY_FLOOR = 1e-7  # only in the form of the authors' code


class DiscretizedLogistic(tfd.Distribution):
    """A logistic variable rounded down to one of 256 bins of [0, 1]; values are the bins' centres.

    P(bin k) = F((k + 1) / 256) - F(k / 256) with F(x) = sigmoid((x - loc) / scale). The first bin
    is open below and the last open above, so that the 256 probabilities sum to 1. A value x lies in
    bin floor(256 x). With a and b the standardised edges of a bin, its log-probability is computed
    as log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b)), which
    never subtracts two nearly equal numbers.

    Args:
      loc: location of the logistic density, in (0, 1), any shape.
      log_scale: logarithm of its scale, the same shape.
      open_ends: False for the form of the paper's code, log(F((k + 1) / 256) - F(k / 256) + 1e-7)
        in every bin, whose probabilities do not sum to 1.

    >>> pixels = (tf.range(256.0) + 0.5) / 256
    >>> float(tf.reduce_sum(DiscretizedLogistic(loc=0.3, log_scale=-2.0).prob(pixels)))  # doctest: +ELLIPSIS
    1.0...
    """

    def __init__(
        self,
        loc,
        log_scale,
        open_ends: bool = True,
        validate_args=False,
        allow_nan_stats=True,
        name="DiscretizedLogistic",
    ):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self.loc, self.log_scale = tf.convert_to_tensor(loc), tf.convert_to_tensor(log_scale)
            self.open_ends = open_ends
            super().__init__(
                dtype=self.loc.dtype,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "loc": tfp.util.ParameterProperties(),
            "log_scale": tfp.util.ParameterProperties(),
        }

    def _event_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _event_shape(self):
        return tf.TensorShape([])

    def _log_prob(self, x):
        lower = tf.clip_by_value(tf.floor(BINS * x), 0.0, BINS - 1.0) / BINS
        inverse_scale = tf.exp(-self.log_scale)
        a, b = (lower - self.loc) * inverse_scale, (lower + 1.0 / BINS - self.loc) * inverse_scale
        if not self.open_ends:
            return tf.math.log(tf.sigmoid(b) - tf.sigmoid(a) + PROBABILITY_FLOOR)
        below, above = tf.nn.softplus(a), tf.nn.softplus(-b)  # -log sigmoid(-a), -log sigmoid(b)
        width = tf.math.log(-tf.math.expm1(-inverse_scale / BINS))
        first, last = lower <= 0.0, lower >= (BINS - 1.0) / BINS
        return tf.where(first, -above, tf.where(last, -below, width - below - above))

    def _mean(self):
        """Returns the mean, accurate to 3e-5.

        It sums F over the edges by the trapezium rule, whose error is F' / (12 * 256^2).
        """
        scale = tf.exp(self.log_scale)
        at_0, at_1 = self.loc / scale, (self.loc - 1.0) / scale
        integral = scale * (tf.nn.softplus(at_0) - tf.nn.softplus(at_1))
        return integral + (1.0 - tf.sigmoid(at_0) - tf.sigmoid(at_1)) / (2 * BINS)

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns inverse-CDF samples at numbers uniform in (0, 1)."""
        x = self.loc + tf.exp(self.log_scale) * (tf.math.log(uniform) - tf.math.log1p(-uniform))
        return (tf.clip_by_value(tf.floor(BINS * x), 0.0, BINS - 1.0) + 0.5) / BINS

    def _sample_n(self, n, seed):
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        return self.at_uniform(seeds.uniform(shape, tfp.random.sanitize_seed(seed), self.dtype))


@travels
class DiscretizedLogisticImages(TravellingDistribution, tfd.Independent):
    """Images of independent `DiscretizedLogistic` pixels.

    Args:
      distribution: `DiscretizedLogistic` with loc and log_scale [..., H, W, C].
      reinterpreted_batch_ndims: 3, the number of event axes, as in `tfd.Independent`.
    """

    open_ends = True

    def tensors(self):
        return (self.distribution.loc, self.distribution.log_scale)

    @classmethod
    def from_tensors(cls, loc, log_scale):
        pixels = DiscretizedLogistic(loc, log_scale, cls.open_ends)
        return cls(pixels, reinterpreted_batch_ndims=3)

    def _log_prob(self, x):
        x = tf.cast(of_event(x, self.event_shape), self.dtype)
        return sum_over_images(self.distribution.log_prob(x))

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns images [..., H, W, C], inverse-CDF samples at numbers uniform in (0, 1)."""
        return self.distribution.at_uniform(uniform)


@travels
class PaperLogisticImages(DiscretizedLogisticImages):
    """`DiscretizedLogisticImages` in the form of the paper's code (`open_ends=False`)."""

    open_ends = False


@keras.saving.register_keras_serializable(package="tfvamp")
class DiscretizedLogisticLikelihood(LikelihoodLayer):
    """A likelihood of grey pixels in 256 bins: Tomczak and Welling (2018), appendix.

    Args:
      event_shape: shape of one image, (H, W, C).
      open_ends: True for a normalised density; False for the form of the paper's code, which is
        not normalised (see `DiscretizedLogistic`).

    Call: raw [..., 2 * H * W * C], the logits of all means followed by all log-scales ->
    `DiscretizedLogisticImages` with event shape [H, W, C].

    >>> likelihood = DiscretizedLogisticLikelihood((28, 20, 1))
    >>> likelihood.heads, likelihood(tf.zeros([5, 2 * 560])).batch_shape
    (('pixels', 'log_scale'), TensorShape([5]))
    """

    heads = ("pixels", "log_scale")
    autoregressive_bias = False

    def __init__(self, event_shape, open_ends: bool = True, **kwargs):
        super().__init__(event_shape, **kwargs)
        self.open_ends = bool(open_ends)

    def parameters_of(self, logits, log_scale) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns loc and log_scale clipped to their bounds, outside which there is no gradient."""
        return loc_in_bounds(tf.sigmoid(logits)), tf.clip_by_value(log_scale, *LOG_SCALE_RANGE)

    def of_pixels(self, logits, log_scale):
        return DiscretizedLogistic(*self.parameters_of(logits, log_scale), self.open_ends)

    def of_images(self, logits, log_scale):
        images = DiscretizedLogisticImages if self.open_ends else PaperLogisticImages
        return images.from_tensors(*self.parameters_of(logits, log_scale))

    def get_config(self):
        return {**super().get_config(), "open_ends": self.open_ends}


def loc_in_bounds(loc: tf.Tensor) -> tf.Tensor:
    """Returns the mean of the logistic, clipped to stay half a bin away from 0 and 1 (no gradient outside)."""
    return tf.clip_by_value(loc, LOC_MARGIN, 1.0 - LOC_MARGIN)
