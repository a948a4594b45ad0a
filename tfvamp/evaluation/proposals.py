"""The proposals of importance sampling: the encoder's q(z | x), or a normal that is fitted to each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfvamp import objectives
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.objectives import Level

WATCHED = 50  # number of steps over which the bound is averaged to judge it
SMALL = 0.1  # a slope, in nats per unit, below which steps shrink: rounding and noise cause such slopes
RISEN = 0.5  # nats by which the bound may still rise over the last steps


class Fit(NamedTuple):
    """The change that turns the posteriors of a model into a proposal for B images; zeros change nothing.

    Let e be standard normal noise of all layers in one row, the top one first. Each layer draws
    from its own posterior, shifted, with its part of (I + M) e as noise. M couples the dimensions,
    also those of different layers. Because I + M has determinant 1, the density of a draw is that
    of e without a further factor.

    Attributes:
      shifts: for each layer, what is added to the loc and the log-variance [B, D] of its posterior.
      mixing: M [B, sum of D, sum of D], of which only the part below the diagonal is used.
      mixing: M [B, sum of D, sum of D], of which the part below the diagonal counts.
    """

    shifts: tuple[tuple[tf.Tensor, tf.Tensor], ...]
    mixing: tf.Tensor


class Proposal(NamedTuple):
    """The distribution from which the latents of B images are drawn.

    Attributes:
      loc, log_variance: parameters of the encoder's q(z | x) for the top layer, [B, D].
      fit: the change of q(z | x) and of the posteriors below it; empty for the encoder's own.
    """

    loc: tf.Tensor
    log_variance: tf.Tensor
    fit: Fit | tuple[()] = ()


def of_encoder(posterior: DiagonalGaussian) -> Proposal:
    """Returns the proposal that consists of the model's own posteriors."""
    return Proposal(posterior.loc, posterior.log_variance)


def unfitted(own: Proposal, levels: Sequence[Level]) -> Proposal:
    """Returns the same proposal, with a fit of zeros."""
    count, dims = tf.shape(own.loc)[0], [own.loc.shape[1], *(level.dims for level in levels)]

    def zeros(*shape: int) -> tf.Tensor:
        return tf.zeros([count, *shape], own.loc.dtype)

    shifts = tuple((zeros(size), zeros(size)) for size in dims)
    return own._replace(fit=Fit(shifts, zeros(sum(dims), sum(dims))))


def drawn(
    proposal: Proposal,
    x: tf.Tensor,
    noise: Sequence[tf.Tensor],
    levels: Sequence[Level],
    of_path: bool = False,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns latents from standard normal noise [S, B, D], and their log q [S, B], for each layer from the top down.

    Args:
      of_path: whether to differentiate log q only through the latents, as if the fit were constant.
    """
    fit = proposal.fit
    if not fit:
        own = DiagonalGaussian(proposal.loc, proposal.log_variance)
        latents, posteriors = objectives.infer(own, levels, x, noise)
        return latents, [q.log_prob(z) for q, z in zip(posteriors, latents, strict=True)]
    owns, latents = [], []
    sizes = [of_layer.shape[-1] for of_layer in noise]
    mixed = tf.split(_mixed(fit.mixing, tf.concat(noise, axis=-1)), sizes, axis=-1)
    for layer, (draw, shift) in enumerate(zip(mixed, fit.shifts, strict=True)):
        owns.append(_own(proposal, x, latents, levels, layer))
        latents.append(_shifted(owns[-1], shift).at(draw))
    if of_path:
        fit = tf.nest.map_structure(tf.stop_gradient, fit)
        noise = _noise_at(fit, owns, latents)
    posteriors = [_shifted(own, shift) for own, shift in zip(owns, fit.shifts, strict=True)]
    return latents, [
        -0.5 * tf.reduce_sum(draw**2 + q.log_variance + math.log(2.0 * math.pi), axis=-1)
        for draw, q in zip(noise, posteriors, strict=True)
    ]


def noise_at(
    proposal: Proposal, x: tf.Tensor, latents: Sequence[tf.Tensor], levels: Sequence[Level]
) -> list[tf.Tensor]:
    """Returns the noise [S, B, D] of each layer that gives latents [S, B, D]: the inverse of `drawn`."""
    owns = [_own(proposal, x, latents, levels, layer) for layer in range(len(latents))]
    if not proposal.fit:
        return [own.noise_at(z) for own, z in zip(owns, latents, strict=True)]
    return _noise_at(proposal.fit, owns, latents)


def _own(proposal: Proposal, x, latents, levels: Sequence[Level], layer: int) -> DiagonalGaussian:
    """Returns the model's own posterior of a layer."""
    if not layer:
        return DiagonalGaussian(proposal.loc, proposal.log_variance)
    return levels[layer - 1].posterior(x, latents[layer - 1])


def _shifted(own: DiagonalGaussian, shift: tuple[tf.Tensor, tf.Tensor]) -> DiagonalGaussian:
    return DiagonalGaussian(own.loc + shift[0], own.log_variance + shift[1])


def _below_diagonal(mixing: tf.Tensor) -> tf.Tensor:
    return mixing - tf.linalg.band_part(mixing, 0, -1)


def _mixed(mixing: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Returns (I + M) e for e [S, B, D]."""
    return noise + tf.einsum("bij,sbj->sbi", _below_diagonal(mixing), noise)


def _noise_at(fit: Fit, owns, latents) -> list[tf.Tensor]:
    """Returns the noise of latents, by the inverse of the shifts and of the mixing."""
    mixed = [
        _shifted(own, shift).noise_at(z) for own, shift, z in zip(owns, fit.shifts, latents, strict=True)
    ]
    sizes = [of_layer.shape[-1] for of_layer in mixed]
    lower = _below_diagonal(fit.mixing) + tf.eye(sum(sizes), dtype=fit.mixing.dtype)
    columns = tf.transpose(tf.concat(mixed, axis=-1), [1, 2, 0])  # [B, D, S]
    noise = tf.transpose(tf.linalg.triangular_solve(lower, columns), [2, 0, 1])
    return tf.split(noise, sizes, axis=-1)


def log_weight_parts(
    proposal: Proposal,
    x: tf.Tensor,
    noise,
    prior,
    decoder: Callable,
    levels: Sequence[Level],
    of_path: bool = False,
) -> objectives.Parts:
    """Returns the parts of log w [S, B] for latents drawn from the proposal with standard normal noise [S, B, D]."""
    latents, log_q = drawn(proposal, x, noise, levels, of_path)
    reconstruction, log_p = objectives.joint(latents, objectives.Generator(prior, decoder, levels), x)
    return objectives.Parts(reconstruction, tuple(q - p for q, p in zip(log_q, log_p, strict=True)))


def refine(
    start: Proposal,
    x: tf.Tensor,
    noise: Sequence[tf.Tensor],
    prior,
    decoder: Callable,
    levels: Sequence[Level],
    steps: int,
    step_size: float,
    samples: int,
) -> tuple[Fit, tf.Tensor, tf.Tensor]:
    """Fits a proposal by steps of Adam that increase the evidence lower bound of each image, for all layers at once.

    The gradient is that of Roeder, Wu and Duvenaud (2017): log q is differentiated only through the
    latents, so that the noise of the gradient goes to zero as q comes close to p(z | x). The images
    do not influence each other. Log-variances are not clipped. An image keeps the posteriors that
    it started with, unless its mean bound over the last `WATCHED` steps is higher than that of
    these posteriors.

    Args:
      start: the initial proposal, without a fit.
      x: images [B, H, W, C].
      noise: standard normal draws [steps samples, B, D] for each layer.
      prior, decoder, levels: p(x, z).
      steps, step_size: number and size of Adam's steps; the size falls to zero over the last third
        of the steps.
      samples: number of latents per image and step.

    Returns:
      the fit; the mean bound over the last `WATCHED` steps, and over as many steps before them, [B]
      each.
    """
    fit = unfitted(start, levels).fit
    first = tf.nest.flatten(fit)

    def bound_of(parameters, step):
        proposal = start._replace(fit=tf.nest.pack_sequence_as(fit, parameters))
        draws = [of_layer[step * samples : (step + 1) * samples] for of_layer in noise]
        parts = log_weight_parts(proposal, x, draws, prior, decoder, levels, of_path=True)
        return tf.reduce_mean(parts.reconstruction - parts.kl, axis=0)  # [B]

    def body(step, parameters, means, squares, bounds):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            bound = bound_of(parameters, step)
        slopes = tape.gradient(bound, parameters)
        slopes = [tf.where(tf.math.is_finite(slope), slope, 0.0) for slope in slopes]
        means = [0.9 * mean + 0.1 * slope for mean, slope in zip(means, slopes, strict=True)]
        squares = [0.999 * square + 0.001 * slope**2 for square, slope in zip(squares, slopes, strict=True)]
        count = tf.cast(step + 1, x.dtype)
        left = 3.0 * (1.0 - (count - 1.0) / steps)  # the step size falls to zero over the last third
        scale = step_size * tf.minimum(left, 1.0) / (1.0 - 0.9**count)
        parameters = [
            parameter + scale * mean / (tf.sqrt(square / (1.0 - 0.999**count)) + SMALL)
            for parameter, mean, square in zip(parameters, means, squares, strict=True)
        ]
        return step + 1, parameters, means, squares, bounds.write(step, bound)

    zeros = [tf.zeros_like(parameter) for parameter in first]
    bounds = tf.TensorArray(x.dtype, steps, element_shape=x.shape[:1])
    state = (tf.constant(0), first, zeros, [tf.zeros_like(zero) for zero in zeros], bounds)
    _, parameters, _, _, bounds = tf.while_loop(
        lambda step, *_: step < steps, body, state, maximum_iterations=steps, parallel_iterations=1
    )
    bounds = bounds.stack()  # [steps, B]
    watched = max(1, min(WATCHED, steps // 2))
    last = tf.reduce_mean(bounds[-watched:], axis=0)
    before = tf.reduce_mean(bounds[-2 * watched : -watched], axis=0)
    own = tf.map_fn(  # the bound of the model's own posteriors, with the noise of the last steps
        lambda step: bound_of(first, step),
        tf.range(steps - watched, steps),
        fn_output_signature=tf.TensorSpec(x.shape[:1], x.dtype),
        parallel_iterations=1,
    )
    better = (last > tf.reduce_mean(own, axis=0)) & tf.math.is_finite(last)
    kept = [
        tf.where(tf.reshape(better, [-1] + [1] * (fitted.shape.rank - 1)), fitted, 0.0)
        for fitted in parameters
    ]
    return tf.nest.pack_sequence_as(fit, kept), last, before
