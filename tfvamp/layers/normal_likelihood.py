"""Normal densities as p(x | z): for tables, colour images and standardised data."""

from __future__ import annotations

import math
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.distribution_layer import TravellingDistribution, travels
from tfvamp.layers.likelihoods import LikelihoodLayer, of_event

LOG_SCALE_BOUNDS = (-7.0, 7.0)  # a density is unbounded: without a smallest scale, training may diverge
LEARNED, LEARNED_EACH, PREDICTED = "learned", "learned-per-column", "predicted"


class PhiloxNormal(tfd.Normal):
    """A `tfd.Normal` that draws from Philox bits: the same samples eagerly, in a graph and under XLA."""

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns inverse-CDF samples at numbers uniform in (0, 1)."""
        return self.loc + self.scale * seeds.normal_of(uniform)

    def _sample_n(self, n, seed):
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        return self.at_uniform(seeds.uniform(shape, tfp.random.sanitize_seed(seed), self.dtype))


class _Normals(TravellingDistribution, tfd.Independent):
    """Independent normals over an event of `event_rank` axes."""

    event_rank: ClassVar[int]

    def tensors(self):
        return self.distribution.loc, self.distribution.scale

    @classmethod
    def from_tensors(cls, loc, scale):
        return cls(PhiloxNormal(loc, scale), reinterpreted_batch_ndims=cls.event_rank)

    def _log_prob(self, x):
        return super()._log_prob(tf.cast(of_event(x, self.event_shape), self.dtype))

    def at_uniform(self, uniform) -> tf.Tensor:
        """Returns events [..., *event], inverse-CDF samples at numbers uniform in (0, 1)."""
        return self.distribution.at_uniform(uniform)


@travels
class NormalVectors(_Normals):
    """Independent normals over rows [..., F].

    Args:
      distribution: `PhiloxNormal` with loc and scale [..., F].
      reinterpreted_batch_ndims: 1, the number of event axes, as in `tfd.Independent`.
    """

    event_rank = 1


@travels
class NormalImages(_Normals):
    """Independent normals over images [..., H, W, C].

    Args:
      distribution: `PhiloxNormal` with loc and scale [..., H, W, C].
      reinterpreted_batch_ndims: 3, the number of event axes, as in `tfd.Independent`.
    """

    event_rank = 3


@keras.saving.register_keras_serializable(package="tfvamp")
class GaussianLikelihood(LikelihoodLayer):
    """A likelihood of independent normals N(x; loc, scale^2) for unbounded data: tables, standardised or colour images.

    log p(x | z) is the logarithm of a density: it depends on the unit of the data, may be positive,
    and can be compared only with that of another normal likelihood. The logarithm of a learned or
    predicted scale is clipped to [-7, 7].

    Args:
      event_shape: shape of one example: (F,) for the rows of a table, (H, W, C) for images.
      scale: the standard deviation. A number above 0 is fixed; "learned" is one learned number that
        starts at 1; "learned-per-column" is one learned number per column of a table or channel of
        an image; "predicted" is one number per entry, given by the decoder.

    Call: raw [..., F] with one value per entry of the event, or raw [..., 2 F] with a predicted
    scale (all means before all logarithms of scales) -> a distribution with event shape
    `event_shape`.

    Raises:
      ValueError: the scale is neither a number above 0 nor one of these names.

    >>> GaussianLikelihood((3,), scale="learned")(tf.zeros([5, 3])).batch_shape
    TensorShape([5])
    """

    event_ranks: ClassVar[dict[int, str]] = {1: "(F,)", 3: "(H, W, C)"}

    def __init__(self, event_shape, scale: float | str = LEARNED, **kwargs):
        super().__init__(event_shape, **kwargs)
        self.scale = checked_scale(scale)
        self.heads = ("loc", "log_scale") if scale == PREDICTED else ("loc",)  # type: ignore[misc]
        if scale in (LEARNED, LEARNED_EACH):
            shape = () if scale == LEARNED else self.event_shape[-1:]
            self.log_scale = self.add_weight(name="log_scale", shape=shape, initializer="zeros")
        self.built = True

    def _scale(self, loc: tf.Tensor, *log_scale: tf.Tensor) -> tf.Tensor:
        if log_scale:
            return scale_of(*log_scale)
        if self.scale in (LEARNED, LEARNED_EACH):
            return tf.broadcast_to(scale_of(tf.cast(self.log_scale, loc.dtype)), tf.shape(loc))
        return tf.fill(tf.shape(loc), tf.constant(self.scale, loc.dtype))

    def of_pixels(self, loc, *log_scale):
        return PhiloxNormal(loc, self._scale(loc, *log_scale))

    def of_images(self, loc, *log_scale):
        events = NormalImages if len(self.event_shape) == 3 else NormalVectors
        return events.from_tensors(loc, self._scale(loc, *log_scale))

    def call(self, raw):
        size = len(self.heads) * math.prod(self.event_shape)
        if raw.shape[-1] != size:
            raise ValueError(
                f"the raw outputs must have shape [..., {size}], {len(self.heads)} for each entry of the event "
                f"{self.event_shape}; got {list(raw.shape)}"
            )
        return super().call(raw)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def checked_scale(scale: float | str) -> float | str:
    """Returns the scale of a normal likelihood unchanged, after checking it.

    Raises:
      ValueError: it is neither a number above 0 nor one of the names.
    """
    if isinstance(scale, str) and scale in (LEARNED, LEARNED_EACH, PREDICTED):
        return scale
    number = float(scale) if isinstance(scale, (int, float, np.number)) else math.nan
    if not 0.0 < number < math.inf:
        raise ValueError(
            f'scale must be a number above 0, "{LEARNED}", "{LEARNED_EACH}" or "{PREDICTED}"; got {scale!r}'
        )
    return number


def scale_of(log_scale: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation, given the logarithm that a network outputs."""
    return tf.exp(tf.clip_by_value(log_scale, *LOG_SCALE_BOUNDS))
