"""A mixture of diagonal normals whose `sample` and `log_prob` need little memory."""

from __future__ import annotations

import math

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.distribution_layer import TravellingDistribution, travels
from tfvamp.layers.gaussian import DiagonalGaussian


@travels
class DiagonalGaussianMixture(TravellingDistribution, tfd.MixtureSameFamily):
    """A mixture of diagonal normals, sum_k w_k N(z; loc_k, diag(exp(log_variance_k))), a `tfd.MixtureSameFamily`.

    TFP's own `sample` draws from all K components, and its own `log_prob` makes a
    tensor [S, K, D]. Here `sample` first draws a component for each sample and then
    the sample from it (ancestral sampling), and `log_prob` is one matrix product,
    [S, 2 D] times [2 D, K], by

        log N(z; m, v) = -1/2 (sum_d z_d^2 / v_d - 2 z_d m_d / v_d) - 1/2 sum_d (m_d^2 / v_d + log 2 pi v_d)

    It is computed in float64, because its terms cancel: with log-variances of -6,
    float32 loses about 1e-3 nats, and a GPU's TensorFloat-32 loses whole nats.

    Args:
      mixture_distribution: `tfd.Categorical` with logits [K].
      components_distribution: `DiagonalGaussian` with batch shape [K].

    >>> components = DiagonalGaussian(tf.random.normal([5, 2]), tf.zeros([5, 2]))
    >>> p = DiagonalGaussianMixture(tfd.Categorical(logits=tf.zeros([5])), components)
    >>> p.log_prob(p.sample(3, seed=(0, 1))).shape
    TensorShape([3])
    """

    def tensors(self):
        logits = self.mixture_distribution.logits_parameter()
        return logits, *self.components_distribution.tensors()

    @classmethod
    def from_tensors(cls, logits, loc, log_variance):
        return cls(tfd.Categorical(logits=logits), DiagonalGaussian(loc, log_variance))

    @property
    def num_components(self) -> int:
        """The number of components, K."""
        return self.components_distribution.batch_shape[0]

    def sample_component(self, component: int | tf.Tensor, n: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Returns n draws [n, D] from a single component; components are numbered from 0."""
        components = self.components_distribution
        one = DiagonalGaussian(components.loc[component], components.log_variance[component])
        return one.sample(n, seed=seed)

    def component_log_prob(self, value: tf.Tensor) -> tf.Tensor:
        """Returns log w_k + log N(value; component k): [..., K] for a value [..., D], in nats."""
        components = self.components_distribution
        loc = tf.cast(components.loc, tf.float64)
        log_variance = tf.cast(components.log_variance, tf.float64)
        precision = tf.exp(-log_variance)
        log_weights = tf.nn.log_softmax(tf.cast(self.mixture_distribution.logits_parameter(), tf.float64))
        constant = log_weights - 0.5 * tf.reduce_sum(
            loc**2 * precision + log_variance + math.log(2.0 * math.pi), axis=-1
        )  # [K]
        natural = tf.concat([-0.5 * precision, loc * precision], axis=-1)  # [K, 2 D]
        value = tf.cast(value, tf.float64)
        rows = tf.reshape(tf.concat([value**2, value], axis=-1), [-1, natural.shape[-1]])
        log_prob = tf.matmul(rows, natural, transpose_b=True) + constant  # [S, K]
        shape = tf.concat([tf.shape(value)[:-1], [natural.shape[0]]], axis=0)
        log_prob = tf.reshape(tf.cast(log_prob, self.dtype), shape)
        return tf.ensure_shape(log_prob, value.shape[:-1].concatenate(natural.shape[0]))

    def _log_prob(self, value):
        return tf.reduce_logsumexp(self.component_log_prob(value), axis=-1)

    def _sample_n(self, n, seed):
        seed = tfp.random.sanitize_seed(seed)
        component = self._draw_components(n, seeds.fold_in_name(seed, "component"))
        components = self.components_distribution
        loc = tf.gather(components.loc, component)  # [n, D]
        scale = tf.exp(0.5 * tf.gather(components.log_variance, component))
        return loc + scale * seeds.normal(tf.shape(loc), seeds.fold_in_name(seed, "normal"), self.dtype)

    def _draw_components(self, n, seed):
        """Returns component indices [n], drawn by inverse-CDF sampling of the weights."""
        weights = tf.nn.softmax(tf.cast(self.mixture_distribution.logits_parameter(), tf.float64))
        cumulative = tf.cumsum(weights)
        draws = seeds.uniform([n], seed, tf.float64) * cumulative[-1]
        return tf.searchsorted(cumulative, draws, side="right")
