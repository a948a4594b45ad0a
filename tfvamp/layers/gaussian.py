"""Diagonal normal posteriors: the distribution, the layer that produces it, and reading an encoder's output."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers import initializers
from tfvamp.layers.distribution_layer import DistributionLayer, TravellingDistribution, travels

LOG_VARIANCE_BOUNDS = (-6.0, 2.0)  # the hard tanh of the paper's code
NAMES = {  # the keys of an encoder's outputs in a dictionary
    "loc": ("loc", "mean", "mu", "z_mean"),
    "log_variance": ("log_variance", "log_var", "logvar", "z_log_var", "z_log_variance"),
    "scale": ("scale", "stddev", "std", "sigma"),
}


def at_least_float32(dtype: str) -> str:
    """Returns the dtype of densities for weights or inputs of a dtype: "float64" for "float64", otherwise "float32"."""
    return "float64" if dtype == "float64" else "float32"


@travels
class DiagonalGaussian(TravellingDistribution, tfd.AutoCompositeTensorDistribution):
    """N(loc, diag(exp(log_variance))): a diagonal normal made for VAEs.

    It has the methods of a `tfd.MultivariateNormalDiag`, but keeps the log-variance (no exp
    followed by log), evaluates the density in one fused expression, and draws Philox noise, so that
    a seed gives the same sample eagerly, in a graph and under XLA. It is made in a tenth of the
    time, because it needs no linear operator and no bijectors. Samples are reparameterised.

    Args:
      loc: mean, [..., D].
      log_variance: logarithm of the variance, [..., D].

    >>> q = DiagonalGaussian(loc=[[0.0, 1.0]], log_variance=[[0.0, -2.0]])
    >>> q.batch_shape, q.event_shape
    (TensorShape([1]), TensorShape([2]))
    >>> q.kl_divergence(tfd.MultivariateNormalDiag([0.0, 0.0])).shape
    TensorShape([1])
    """

    def __init__(self, loc, log_variance, validate_args=False, allow_nan_stats=True, name="DiagonalGaussian"):
        parameters = dict(locals())
        with tf.name_scope(name):
            log_variance = tf.convert_to_tensor(log_variance)
            self._loc, self._log_variance = _of_one_shape(
                tf.convert_to_tensor(loc, log_variance.dtype), log_variance
            )
            super().__init__(
                dtype=self._log_variance.dtype,
                reparameterization_type=tfd.FULLY_REPARAMETERIZED,
                validate_args=validate_args,
                allow_nan_stats=allow_nan_stats,
                parameters=parameters,
                name=name,
            )

    @property
    def loc(self) -> tf.Tensor:
        """The mean, [..., D]."""
        return self._loc

    @property
    def log_variance(self) -> tf.Tensor:
        """The log-variance, [..., D]."""
        return self._log_variance

    @property
    def scale(self) -> tf.linalg.LinearOperatorDiag:
        """The standard deviations as a linear operator, as a `tfd.MultivariateNormalDiag` has it."""
        return tf.linalg.LinearOperatorDiag(
            self._stddev(), is_non_singular=True, is_self_adjoint=True, is_positive_definite=True
        )

    def at(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns loc + scale noise: reparameterised samples [..., D] from standard normal noise [..., D]."""
        return self.loc + self._stddev() * noise

    def noise_at(self, value: tf.Tensor) -> tf.Tensor:
        """Returns the noise [..., D] from which `at` makes a value [..., D]: the inverse of `at`."""
        return (value - self.loc) * tf.exp(-0.5 * self._log_variance)

    def tensors(self):
        return self.loc, self._log_variance

    @classmethod
    def from_tensors(cls, loc, log_variance):
        return cls(loc, log_variance)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "loc": tfp.util.ParameterProperties(event_ndims=1),
            "log_variance": tfp.util.ParameterProperties(event_ndims=1),
        }

    def _event_shape(self):
        return self.loc.shape[-1:]

    def _event_shape_tensor(self):
        return tf.shape(self.loc)[-1:]

    def _default_event_space_bijector(self):
        return tfp.bijectors.Identity(validate_args=self.validate_args)

    def _call_sample_n(self, sample_shape, seed, **kwargs):
        sample_shape = tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
        shape = tf.concat([sample_shape, tf.shape(self.loc)], axis=0)
        return self.at(seeds.normal(shape, tfp.random.sanitize_seed(seed), self.dtype))

    def _log_prob(self, value):
        square = tf.math.squared_difference(value, self.loc) * tf.exp(-self._log_variance)
        return -0.5 * tf.reduce_sum(square + self._log_variance + math.log(2.0 * math.pi), axis=-1)

    def _mean(self):
        return self.loc

    _mode = _mean

    def _stddev(self):
        return tf.exp(0.5 * self._log_variance)

    def _variance(self):
        return tf.exp(self._log_variance)

    def _covariance(self):
        return tf.linalg.diag(self._variance())

    def _entropy(self):
        return 0.5 * tf.reduce_sum(self._log_variance + math.log(2.0 * math.pi * math.e), axis=-1)


def _of_one_shape(loc: tf.Tensor, log_variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if loc.shape == log_variance.shape:
        return loc, log_variance
    static = tf.broadcast_static_shape(loc.shape, log_variance.shape)
    shape = tf.broadcast_dynamic_shape(tf.shape(loc), tf.shape(log_variance))
    loc, log_variance = (tf.ensure_shape(tf.broadcast_to(t, shape), static) for t in (loc, log_variance))
    return loc, log_variance


@tfd.RegisterKL(DiagonalGaussian, DiagonalGaussian)
def _kl(a: DiagonalGaussian, b: DiagonalGaussian, name=None) -> tf.Tensor:
    """Returns KL(a || b) [...] in nats."""
    square = tf.math.squared_difference(a.loc, b.loc) * tf.exp(-b.log_variance)
    difference = a.log_variance - b.log_variance
    return 0.5 * tf.reduce_sum(square + tf.math.expm1(difference) - difference, axis=-1)


@tfd.RegisterKL(DiagonalGaussian, tfd.MultivariateNormalLinearOperator)
def _kl_to_normal(a: DiagonalGaussian, b, name=None) -> tf.Tensor:
    return tfd.kl_divergence(tfd.MultivariateNormalDiag(a.loc, a.stddev()), b)


@tfd.RegisterKL(tfd.MultivariateNormalLinearOperator, DiagonalGaussian)
def _kl_from_normal(a, b: DiagonalGaussian, name=None) -> tf.Tensor:
    return tfd.kl_divergence(a, tfd.MultivariateNormalDiag(b.loc, b.stddev()))


def as_diagonal_gaussian(output) -> DiagonalGaussian:
    """Returns the posterior that an encoder's output describes.

    Args:
      output: one of the following, with tensors [..., D]: a `tfd.MultivariateNormalDiag`; a
        `tfd.Independent` of a `tfd.Normal` over one dimension; a pair (mean, log-variance); a
        triple (mean, log-variance, sample) as in the VAE of the Keras documentation; a dictionary;
        or one tensor [..., 2 D] with the means in the first D columns and the log-variances in the
        others. A dictionary has the mean under "mean", "mu", "loc" or "z_mean", and the
        log-variance under "log_variance", "log_var", "logvar" or "z_log_var". Instead of the
        log-variance it may have the standard deviation, under "scale", "stddev", "std" or "sigma".

    Returns:
      `DiagonalGaussian` with at least float32 (densities never in half precision).

    Raises:
      TypeError: the output is none of these.
    """
    if isinstance(output, DiagonalGaussian) and output.dtype in (tf.float32, tf.float64):
        return output
    independent = isinstance(output, tfd.Independent) and isinstance(output.distribution, tfd.Normal)
    if isinstance(output, DiagonalGaussian):
        return DiagonalGaussian(_at_least_float32(output.loc), _at_least_float32(output.log_variance))
    if isinstance(output, tfd.MultivariateNormalDiag) or (independent and output.event_shape.rank == 1):
        loc, scale = _at_least_float32(output.mean()), _at_least_float32(output.stddev())
        return DiagonalGaussian(loc, 2.0 * tf.math.log(scale))
    if isinstance(output, Mapping):
        output = _pair(output)
    if isinstance(output, (list, tuple)) and len(output) in (2, 3):
        loc, log_variance = (_at_least_float32(part) for part in output[:2])
        if loc.shape.rank and loc.shape[-1] != 0 and loc.shape.is_compatible_with(log_variance.shape):
            return DiagonalGaussian(loc, log_variance)
    if (
        isinstance(output, (tf.Tensor, np.ndarray))
        and output.ndim > 1
        and output.shape[-1]
        and output.shape[-1] % 2 == 0
    ):
        return DiagonalGaussian(*tf.split(_at_least_float32(output), 2, axis=-1))
    raise TypeError(
        "the encoder must return a diagonal normal over one latent dimension: a "
        "tfd.MultivariateNormalDiag, a tfd.Independent(tfd.Normal(...), 1), a pair (mean, log_variance) or a "
        "triple (mean, log_variance, z) of tensors of the same shape [..., D], a dictionary of them "
        '({"mean": ..., "log_variance": ...}), or one tensor [..., 2 D]; '
        f"got {_describe(output)}"
    )


def _pair(output: Mapping) -> Mapping | tuple:
    """Returns (mean, log-variance) of a dictionary, or the dictionary itself if its keys do not tell."""
    named = {key: [output[name] for name in names if name in output] for key, names in NAMES.items()}
    if len(named["loc"]) != 1 or len(named["log_variance"]) + len(named["scale"]) != 1:
        return output
    if named["log_variance"]:
        return named["loc"][0], named["log_variance"][0]
    return named["loc"][0], 2.0 * tf.math.log(_at_least_float32(named["scale"][0]))


def _at_least_float32(value) -> tf.Tensor:
    value = tf.convert_to_tensor(value)
    return tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value


def _describe(output) -> str:
    if isinstance(output, Mapping):
        return f"a dictionary with the keys {', '.join(map(repr, output)) or 'nothing'}"
    if isinstance(output, (list, tuple)):
        return f"{type(output).__name__} of {', '.join(_describe(part) for part in output) or 'nothing'}"
    shape = getattr(output, "shape", "")
    return f"{type(output).__name__} {shape}".rstrip() if shape is not None else type(output).__name__


@keras.saving.register_keras_serializable(package="tfvamp")
class GaussianPosterior(DistributionLayer):
    """The head of an encoder: two linear maps to N(loc, diag(exp(log_variance))).

    The log-variance is clipped to [-6, 2] (no gradient outside), as in the paper's code.

    Args:
      latent_dims: D.

    Call: features [..., F] -> `DiagonalGaussian` with batch shape [...] and event shape [D].

    >>> encoder = keras.Sequential([keras.Input((6,)), GaussianPosterior(latent_dims=2)])
    >>> encoder(tf.zeros([3, 6])).mean().shape
    TensorShape([3, 2])
    """

    def __init__(self, latent_dims: int, **kwargs):
        super().__init__(**kwargs)
        if latent_dims < 1:
            raise ValueError(f"latent_dims must be at least 1; got {latent_dims}")
        self.latent_dims = int(latent_dims)

    def build(self, input_shape):
        fan_in = int(input_shape[-1])
        self.loc = initializers.dense(self.latent_dims, fan_in, name="loc", dtype=self.dtype_policy)
        self.log_variance = initializers.dense(
            self.latent_dims, fan_in, name="log_variance", dtype=self.dtype_policy
        )
        self.loc.build(input_shape)
        self.log_variance.build(input_shape)

    def call(self, features):
        log_variance = tf.clip_by_value(_at_least_float32(self.log_variance(features)), *LOG_VARIANCE_BOUNDS)
        return DiagonalGaussian(_at_least_float32(self.loc(features)), log_variance)

    def get_config(self):
        return {**super().get_config(), "latent_dims": self.latent_dims}


@keras.saving.register_keras_serializable(package="tfvamp")
class GaussianSample(keras.layers.Layer):
    """Draws a reparameterised sample z = loc + exp(log_variance / 2) noise from an encoder's output.

    Every call, in training or not, draws new noise from the seed and a counter. The counter is a
    weight: it is stored in `.keras` and weight files, so that a loaded model continues where it
    stopped.

    Args:
      seed: seed of the noise; None draws one from Python's generator, which
        `keras.utils.set_random_seed` sets.

    Call: what `as_diagonal_gaussian` reads, [..., D] -> z [..., D], float32 (float64 where the inputs are).

    >>> GaussianSample(seed=0)([tf.zeros([3, 2]), tf.zeros([3, 2])]).shape
    TensorShape([3, 2])
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**{"dtype": at_least_float32(keras.config.floatx()), "autocast": False, **kwargs})
        self.seed = random.randrange(seeds.LARGEST) if seed is None else int(seed)
        seeds.stateless(self.seed)  # raises an error for what is not a seed
        self.calls = self.add_weight(
            name="calls",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.told: list[Callable[[], None]] = []  # called at each sample: divergences wait for it
        self.built = True

    def call(self, inputs):
        for tell in self.told:
            tell()
        seed = seeds.fold_in(seeds.stateless(self.seed, "GaussianSample"), self.calls)
        self.calls.assign_add(1)
        return as_diagonal_gaussian(inputs).sample(seed=seeds.of_replica(seed))

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
