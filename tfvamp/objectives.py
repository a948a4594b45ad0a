"""Objectives as pure functions of distributions, data and noise; in nats, higher is better.

A model has one or several stochastic layers, from the top one, on which the prior is, down to the
data: p(x | z_1 .. z_L) p(z_1 | z_2) .. p(z_L), with posteriors q(z_L | x) .. q(z_1 | x, z_2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp import seeds
from tfvamp.layers.gaussian import DiagonalGaussian


@runtime_checkable
class OfNoise(Protocol):
    """The interface of p(z | z_above) for a lower layer: its draws are a smooth, invertible function of normal noise.

    A `DiagonalGaussian` has it, and so has a flow that takes its parameters from the latents above.

    Attributes:
      loc: the latents [..., D] that are shown without noise, such as the mean.

    >>> isinstance(DiagonalGaussian([0.0], [0.0]), OfNoise)
    True
    """

    loc: Any

    def at(self, noise) -> tf.Tensor:
        """Returns the draw [..., D] for standard normal noise [..., D]."""

    def noise_at(self, value) -> tf.Tensor:
        """Returns the noise [..., D] that gives the draw `value` [..., D]; annealed importance sampling needs it."""

    def log_prob(self, value) -> tf.Tensor:
        """Returns log p(value | z_above) [...] in nats."""


class Level(NamedTuple):
    """A stochastic layer below the top one.

    Attributes:
      name: name of its latents.
      dims: D, number of its latents.
      posterior: a function from images [B, H, W, C] and the latents above [..., B, D] to q(z | x,
        z_above).
      prior: a function from the latents above [..., D] to p(z | z_above), a diagonal normal or
        another density (see `OfNoise`).

    >>> from tfvamp.models import HVAE
    >>> [(level.name, level.dims) for level in HVAE(event_shape=(6, 5, 1), prior="standard").levels]
    [('z1', 40)]
    """

    name: str
    dims: int
    posterior: Callable[[tf.Tensor, tf.Tensor], DiagonalGaussian]
    prior: Callable[[tf.Tensor], OfNoise]


class Generator(NamedTuple):
    """The joint density p(x, z): the prior on the top latents, the layers below, and the decoder of all latents.

    Attributes:
      prior: p(z_L).
      decoder: a function from latents, the top ones first, to p(x | z_1 .. z_L).
      levels: the layers below the top one, from the top down.

    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(6, 5, 1), latent_dims=2, prior="standard")
    >>> generator = Generator(model.prior(), model.decoder)
    >>> generator.decoder(generator.prior.sample(3)).event_shape
    TensorShape([6, 5, 1])
    """

    prior: tfd.Distribution
    decoder: Callable[..., tfd.Distribution]
    levels: Sequence[Level] = ()


class Parts(NamedTuple):
    """The parts of log p(x, z) - log q(z | x) at given latents, [..., B] each, in nats.

    Attributes:
      reconstruction: log p(x | z).
      kls: log q(z_l | ..) - log p(z_l | ..) for each layer from the top down; their means over q
        are the Kullback-Leibler divergences.

    >>> float(Parts(reconstruction=tf.constant(-90.0), kls=(tf.constant(20.0), tf.constant(5.0))).kl)
    25.0
    """

    reconstruction: tf.Tensor
    kls: tuple[tf.Tensor, ...]

    @property
    def kl(self) -> tf.Tensor:
        """The sum of `kls` over the layers."""
        return tf.add_n(self.kls)


class Bound(NamedTuple):
    """A lower bound on log p(x) and its parts, [B] each, in nats.

    Attributes:
      bound: value of the bound, with the KL weighted by beta.
      reconstruction, kl, kls: means over the samples; `kl` is the sum of `kls` over the layers.
      surrogate: the quantity that training differentiates. It equals `bound`, except with the
        doubly reparameterised gradient, where its value has no meaning.

    >>> from tfvamp.models import VAE
    >>> bound = VAE(event_shape=(6, 5, 1), prior="standard").elbo(tf.zeros([3, 6, 5, 1]), seed=(0, 1))
    >>> bool(tf.reduce_all(bound.bound == bound.reconstruction - bound.kl))
    True
    """

    bound: tf.Tensor
    reconstruction: tf.Tensor
    kl: tf.Tensor
    kls: tuple[tf.Tensor, ...]
    surrogate: tf.Tensor


Noise = Sequence[tf.Tensor]


class Part(NamedTuple):
    """The rows of a batch that one of several devices holds.

    Attributes:
      start: index in the batch of the first of these rows.
      total: B, number of rows of the whole batch.

    >>> q = DiagonalGaussian(tf.zeros([4, 2]), tf.zeros([4, 2]))
    >>> rows = DiagonalGaussian(q.loc[2:], q.log_variance[2:])
    >>> seed = seeds.stateless(0)
    >>> whole, part = noise(q, (), seed, 1), noise(rows, (), seed, 1, Part(start=2, total=4))
    >>> bool(tf.reduce_all(whole[0][:, 2:] == part[0]))
    True
    """

    start: int | tf.Tensor
    total: int


def noise(
    posterior: DiagonalGaussian,
    levels: Sequence[Level],
    seed: tf.Tensor,
    num_samples: int,
    part: Part | None = None,
) -> list[tf.Tensor]:
    """Returns standard normal draws [S, B, D] for each layer, from the top down.

    With `part`, it returns only the draws for the rows of the posterior, out of those for the whole
    batch. Each row therefore has the same noise, however a batch is divided.
    """
    shape = tf.concat([[num_samples], tf.shape(posterior.loc)], axis=0)
    draws = [_drawn(shape, seed, posterior.dtype, part)]
    for level in levels:
        shape = tf.concat([shape[:-1], [level.dims]], axis=0)
        draws.append(_drawn(shape, seeds.fold_in_name(seed, level.name), posterior.dtype, part))
    return draws


def _drawn(shape: tf.Tensor, seed: tf.Tensor, dtype: tf.DType, part: Part | None) -> tf.Tensor:
    """Returns standard normal draws [S, B, D], or only the rows of a part."""
    if part is None:
        return seeds.normal(shape, seed, dtype)
    whole = seeds.normal(tf.stack([shape[0], part.total, shape[2]]), seed, dtype)
    return tf.slice(whole, tf.stack([0, part.start, 0]), shape)


def infer(
    posterior: DiagonalGaussian, levels: Sequence[Level], x: tf.Tensor, noise: Noise
) -> tuple[list[tf.Tensor], list[DiagonalGaussian]]:
    """Returns latents [..., B, D] by reparameterised noise, the top ones first, and the posteriors they come from."""
    posteriors = [posterior]
    latents = [posterior.at(noise[0])]
    for level, draw in zip(levels, noise[1:], strict=True):
        posteriors.append(level.posterior(x, latents[-1]))
        latents.append(posteriors[-1].at(draw))
    return latents, posteriors


def parts(
    latents: Sequence[tf.Tensor], posteriors: Sequence[DiagonalGaussian], generator: Generator, x
) -> Parts:
    """Returns the parts at latents [..., B, D], the top ones first, for images x [B, H, W, C].

    The reconstruction minus the KL is the log importance weight log p(x, z) / q(z | x).
    """
    log_q = [q.log_prob(z) for q, z in zip(posteriors, latents, strict=True)]
    reconstruction, log_p = joint(latents, generator, x)
    return Parts(reconstruction, tuple(q - p for q, p in zip(log_q, log_p, strict=True)))


def joint(latents, generator: Generator, x) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns log p(x | z) and log p(z_l | z_above) of each layer from the top down."""
    log_p = [generator.prior.log_prob(latents[0])]
    for level, above, z in zip(generator.levels, latents[:-1], latents[1:], strict=True):
        log_p.append(level.prior(above).log_prob(z))
    return generator.decoder(*latents).log_prob(x), log_p


def elbo(
    posterior: DiagonalGaussian,
    generator: Generator,
    x: tf.Tensor,
    noise: Noise,
    beta: float | tf.Tensor = 1.0,
    inputs: tf.Tensor | None = None,
) -> Bound:
    """Returns E_q(z|x)[log p(x | z)] - beta KL(q(z | x) || p(z)), by Monte Carlo with the same z in both terms.

    See Tomczak and Welling (2018), equations 1-3. No closed form exists for a mixture prior.

    Args:
      posterior: q(z_L | x), batch shape [B], event shape [D].
      generator: p(x, z).
      x: images [B, H, W, C].
      noise: standard normal draws [S, B, D] for each layer (`noise`); S samples are averaged
        outside the logarithm.
      beta: weight of the KL (warm-up).
      inputs: the images that the posteriors are computed from, if these are not x; any q gives a
        bound.
    """
    latents, posteriors = infer(posterior, generator.levels, x if inputs is None else inputs, noise)
    at = parts(latents, posteriors, generator, x)
    bound = tf.reduce_mean(at.reconstruction - beta * at.kl, axis=0)
    return _bound(at, bound, bound)


def iwae_bound(
    posterior: DiagonalGaussian,
    generator: Generator,
    x: tf.Tensor,
    noise: Noise,
    beta: float | tf.Tensor = 1.0,
    num_importance_samples: int = 5,
    doubly_reparameterized: bool = False,
    inputs: tf.Tensor | None = None,
) -> Bound:
    """Returns E[log 1/S sum_s w_s], w = p(x, z) / q(z | x): Burda, Grosse and Salakhutdinov (2016), equation 8.

    With one importance sample it is the ELBO; it increases with the number of importance samples.

    Args:
      posterior, generator, x, beta, inputs: as for `elbo`; beta weights the KL within log w.
      noise: draws [L S, B, D] for each layer; L bounds are averaged.
      num_importance_samples: S.
      doubly_reparameterized: whether `surrogate` has the gradient of Tucker, Lawson, Gu and
        Maddison (2019). Its expectation is the same, and its noise is smaller for most parameters.
        It cannot be used with batch normalisation, through which the weights depend on each other.
    """
    inputs = x if inputs is None else inputs
    latents, posteriors = infer(posterior, generator.levels, inputs, noise)
    if doubly_reparameterized:
        at, surrogate = _doubly_reparameterized(
            latents, posterior, generator, x, inputs, beta, num_importance_samples
        )
    else:
        at, surrogate = parts(latents, posteriors, generator, x), None
    log_weights = _grouped(at.reconstruction - beta * at.kl, num_importance_samples)  # [L, S, B]
    bound = tf.reduce_logsumexp(log_weights, axis=1) - math.log(num_importance_samples)
    bound = tf.reduce_mean(bound, axis=0)
    return _bound(at, bound, bound if surrogate is None else surrogate)


def _doubly_reparameterized(
    latents, posterior, generator, x, inputs, beta, num_importance_samples
) -> tuple[Parts, tf.Tensor]:
    """Returns the parts, and a surrogate [B] with the doubly reparameterised gradient.

    With w the normalised weights, g = d log w / d z at fixed parameters of q and p, and z' the
    reparameterised latents: sum_s stop(w) log p(x, stop(z)) + stop(((1 - beta) w + beta w^2) g) z'.
    The first term trains p, including the encoder inside a VampPrior; the second trains q.
    """
    fixed = [tf.stop_gradient(z) for z in latents]
    with tf.GradientTape() as tape:
        tape.watch(fixed)
        posteriors = [
            DiagonalGaussian(tf.stop_gradient(posterior.loc), tf.stop_gradient(posterior.log_variance))
        ]
        posteriors += [
            level.posterior(inputs, above) for level, above in zip(generator.levels, fixed[:-1], strict=True)
        ]
        log_q = [q.log_prob(z) for q, z in zip(posteriors, fixed, strict=True)]
        reconstruction, log_p = joint(fixed, generator, x)
        log_joint = reconstruction + beta * tf.add_n(log_p)
        log_weights = log_joint - beta * tf.add_n(log_q)
    slopes = tape.gradient(log_weights, fixed)
    weights = tf.nn.softmax(_grouped(log_weights, num_importance_samples), axis=1)
    weights = tf.stop_gradient(tf.reshape(weights, tf.shape(log_weights)))  # [L S, B]
    through_z = ((1.0 - beta) * weights + beta * weights**2)[..., tf.newaxis]
    surrogate = weights * log_joint + tf.add_n(
        [
            tf.reduce_sum(tf.stop_gradient(through_z * slope) * z, axis=-1)
            for slope, z in zip(slopes, latents, strict=True)
        ]
    )
    surrogate = tf.reduce_sum(_grouped(surrogate, num_importance_samples), axis=1)
    at = Parts(reconstruction, tuple(q - p for q, p in zip(log_q, log_p, strict=True)))
    return at, tf.reduce_mean(surrogate, axis=0)


def _grouped(values: tf.Tensor, num_importance_samples: int) -> tf.Tensor:
    """Returns [L S, B] as [L, S, B]."""
    return tf.reshape(values, [-1, num_importance_samples, tf.shape(values)[-1]])


def _bound(at: Parts, bound: tf.Tensor, surrogate: tf.Tensor) -> Bound:
    kls = tuple(tf.reduce_mean(kl, axis=0) for kl in at.kls)
    return Bound(bound, tf.reduce_mean(at.reconstruction, axis=0), tf.add_n(kls), kls, surrogate)
