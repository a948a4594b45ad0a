"""What importance sampling draws from: the encoder's q(z | x), or one that is fitted to each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfvamp import objectives
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.objectives import Level

WATCHED = 50  # steps over whose mean the bound is judged
RISEN = 0.5  # nats by which it may still rise over the last steps


class Proposal(NamedTuple):
    """Normals for B images, one stochastic layer after the other.

    Attributes:
      loc, log_variance: of the top layer, [B, D].
      shifts: for each layer below, what is added to the loc and the log-variance [B, D] of the model's own posterior.
    """

    loc: tf.Tensor
    log_variance: tf.Tensor
    shifts: tuple[tuple[tf.Tensor, tf.Tensor], ...]

    @property
    def posterior(self) -> DiagonalGaussian:
        """Of the top layer."""
        return DiagonalGaussian(self.loc, self.log_variance)


def of_encoder(posterior: DiagonalGaussian, levels: Sequence[Level]) -> Proposal:
    """The posteriors of the model itself."""
    count = tf.shape(posterior.loc)[0]
    zeros = tuple((tf.zeros([count, level.dims]), tf.zeros([count, level.dims])) for level in levels)
    return Proposal(posterior.loc, posterior.log_variance, zeros)


def shifted(levels: Sequence[Level], shifts) -> list[Level]:
    """The layers below the top one, each posterior shifted."""

    def of_level(level: Level, loc: tf.Tensor, log_variance: tf.Tensor) -> Level:
        def posterior(x, above):
            own = level.posterior(x, above)
            return DiagonalGaussian(own.loc + loc, own.log_variance + log_variance)

        return level._replace(posterior=posterior)

    return [of_level(level, *shift) for level, shift in zip(levels, shifts, strict=True)]


def log_weight_parts(
    proposal: Proposal, x: tf.Tensor, noise, prior, decoder: Callable, levels: Sequence[Level]
) -> objectives.Parts:
    """The parts of log w [S, B] of latents drawn from the proposal with standard normal noise [S, B, D]."""
    below = shifted(levels, proposal.shifts)
    latents, posteriors = objectives.infer(proposal.posterior, below, x, noise)
    return objectives.parts(latents, posteriors, objectives.Generator(prior, decoder, levels), x)


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
) -> tuple[Proposal, tf.Tensor, tf.Tensor]:
    """The proposal after some steps of Adam up the evidence lower bound of each image, all layers at once.

    The images do not influence each other. Log-variances are not clipped. An image whose bound is not higher at the
    end than at the start, by the mean over `WATCHED` steps, keeps the proposal that it started with.

    Args:
      start: the proposal to begin with.
      x: images [B, H, W, C].
      noise: standard normal draws [steps samples, B, D] for each layer.
      prior, decoder, levels: p(x, z).
      steps, step_size: of Adam; the step size falls to zero over the last third of the steps.
      samples: latents per image and step.

    Returns:
      the proposal; the mean bound over the last `WATCHED` steps, and over those before them, [B] each.
    """
    first = tf.nest.flatten(start)

    def bound_of(parameters, step):
        proposal = tf.nest.pack_sequence_as(start, parameters)
        draws = [of_layer[step * samples : (step + 1) * samples] for of_layer in noise]
        parts = log_weight_parts(proposal, x, draws, prior, decoder, levels)
        return tf.reduce_mean(parts.reconstruction - parts.kl, axis=0)  # [B]

    def body(step, parameters, means, squares, bounds):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            bound = bound_of(parameters, step)
        slopes = tape.gradient(bound, parameters)
        slopes = [tf.where(tf.math.is_finite(slope), slope, 0.0) for slope in slopes]
        count = tf.cast(step + 1, tf.float32)
        means = [0.9 * mean + 0.1 * slope for mean, slope in zip(means, slopes, strict=True)]
        squares = [0.999 * square + 0.001 * slope**2 for square, slope in zip(squares, slopes, strict=True)]
        left = 3.0 * (1.0 - (count - 1.0) / steps)  # the step size falls to zero over the last third
        scale = step_size * tf.minimum(left, 1.0) * tf.sqrt(1.0 - 0.999**count) / (1.0 - 0.9**count)
        parameters = [
            parameter + scale * mean / (tf.sqrt(square) + 1e-8)
            for parameter, mean, square in zip(parameters, means, squares, strict=True)
        ]
        return step + 1, parameters, means, squares, bounds.write(step, bound)

    zeros = [tf.zeros_like(parameter) for parameter in first]
    bounds = tf.TensorArray(tf.float32, steps, element_shape=x.shape[:1])
    state = (tf.constant(0), first, zeros, [tf.zeros_like(zero) for zero in zeros], bounds)
    _, parameters, _, _, bounds = tf.while_loop(
        lambda step, *_: step < steps, body, state, maximum_iterations=steps, parallel_iterations=1
    )
    bounds = bounds.stack()  # [steps, B]
    watched = max(1, min(WATCHED, steps // 2))
    last = tf.reduce_mean(bounds[-watched:], axis=0)
    before = tf.reduce_mean(bounds[-2 * watched : -watched], axis=0)
    better = (last > bounds[0]) & tf.math.is_finite(last)
    kept = [
        tf.where(better[:, tf.newaxis], refined, own) for refined, own in zip(parameters, first, strict=True)
    ]
    return tf.nest.pack_sequence_as(start, kept), last, before
