"""Objectives as pure functions of distributions, data and a seed; in nats, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from tensorflow_probability import distributions as tfd

Decoder = Callable[[tf.Tensor], tfd.Distribution]


class Parts(NamedTuple):
    """The two parts of log p(x, z) - log q(z | x) at given latents, [..., B] each, in nats.

    Attributes:
      reconstruction: log p(x | z).
      kl: log q(z | x) - log p(z), whose mean over q is the Kullback-Leibler divergence.
    """

    reconstruction: tf.Tensor
    kl: tf.Tensor


class Elbo(NamedTuple):
    """The evidence lower bound and its parts: elbo = reconstruction - beta kl, [B] each, in nats."""

    elbo: tf.Tensor
    reconstruction: tf.Tensor
    kl: tf.Tensor


def parts(z: tf.Tensor, posterior: tfd.Distribution, decoder: Decoder, prior: tfd.Distribution, x) -> Parts:
    """The parts at latents z [..., B, D] for images x [B, H, W, C].

    Their difference is the log importance weight log p(x, z) / q(z | x).
    """
    reconstruction = decoder(z).log_prob(x)
    kl = posterior.log_prob(z) - prior.log_prob(z)
    return Parts(reconstruction, kl)


def elbo(
    posterior: tfd.Distribution,
    decoder: Decoder,
    prior: tfd.Distribution,
    x: tf.Tensor,
    seed: tf.Tensor,
    beta: float | tf.Tensor = 1.0,
    num_samples: int = 1,
) -> Elbo:
    """E_q(z|x)[log p(x | z)] - beta KL(q(z | x) || p(z)), by Monte Carlo with the same z in both.

    Tomczak and Welling (2018), equations 1-3. No closed form exists for a mixture prior.

    Args:
      posterior: q(z | x), batch shape [B], event shape [D].
      decoder: from latents [S, B, D] to p(x | z).
      prior: p(z), event shape [D].
      x: images [B, H, W, C].
      seed: stateless, [2].
      beta: weight of the KL (warm-up).
      num_samples: S, averaged outside the logarithm.
    """
    z = posterior.sample(num_samples, seed=seed)  # [S, B, D]
    reconstruction, kl = (tf.reduce_mean(part, axis=0) for part in parts(z, posterior, decoder, prior, x))
    return Elbo(reconstruction - beta * kl, reconstruction, kl)
