"""Annealed importance sampling of log p(x), and the bracket: Neal (2001); Wu, Burda, Salakhutdinov and Grosse (2017).

Chains go from a distribution p_0 that can be sampled to p(z | x), through p_0(u) w(u)^beta for
inverse temperatures beta from 0 to 1, where p_0(u) w(u) = p(x, u). The weight of a chain is an
unbiased estimate of p(x), whatever the moves are, as long as each move leaves its own distribution
invariant. Our moves are Hamiltonian.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvamp import seeds
from tfvamp.blocks import rows_of_gradients
from tfvamp.config import Estimation
from tfvamp.evaluation import proposals
from tfvamp.evaluation.images import AT_ONCE, Part, by_blocks, noise_of, padded, taken
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, levels_of
from tfvamp.evaluation.sharing import Kept
from tfvamp.graph import traced
from tfvamp.objectives import Level

ACCEPTED = 0.65  # target share of accepted moves, to which step sizes adapt: Neal (2011), section 4.4
LEARNED = 0.15  # rate of the adaptation: log step += LEARNED (accepted - ACCEPTED)
FIRST_STEP = 0.3  # initial step size
SETTLING = 30  # moves at the first temperature before step sizes are used
JITTER = 0.2  # each chain's step differs by up to this share, so that no trajectory is periodic
STEEPNESS = 4.0  # of the sigmoid schedule of inverse temperatures
PILOTS = 4  # chains from which step sizes are learned


class Path(NamedTuple):
    """The coordinates u of a chain, one tensor [M, B, D] for each stochastic layer.

    Attributes:
      start: a function from the indices of the images, a seed and M to u drawn from p_0.
      densities: a function from u to log p_0(u) (up to a constant) and log w(u), [M, B] each.
      of_latents: a function from latents [M, B, D], the top ones first, to u.
    """

    start: Callable[[tf.Tensor, tf.Tensor, int], list[tf.Tensor]]
    densities: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, tf.Tensor]]
    of_latents: Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]


class State(NamedTuple):
    """Chains at u, with their log-densities [M, B] and the gradients of these, [M, B, D] for each layer."""

    at: list[tf.Tensor]
    log_start: tf.Tensor
    log_ratio: tf.Tensor
    start_slopes: list[tf.Tensor]
    ratio_slopes: list[tf.Tensor]


def from_proposal(
    proposal: Proposal, x: tf.Tensor, prior, decoder: Callable, levels: Sequence[Level]
) -> Path:
    """Returns the path from q(z | x): u is the noise of the reparameterisation, p_0 = N(0, I), w = p(x, z) / q(z | x).

    The scales of u are those of q, so that one step size suits all dimensions.
    """

    def start(indices, seed, chains):
        return noise_of(seed, indices, chains, proposal.loc.shape[1], levels, prior.dtype)

    def densities(u):
        parts = proposals.log_weight_parts(proposal, x, u, prior, decoder, levels)
        return _log_normal(u), parts.reconstruction - parts.kl

    def of_latents(latents):
        return proposals.noise_at(proposal, x, latents, levels)

    return Path(start, densities, of_latents)


def from_prior(x: tf.Tensor, prior, decoder: Callable, levels: Sequence[Level]) -> Path:
    """Returns the path from p(z): u is z for the top layer, and the noise of z for the layers below; w = p(x | z)."""

    def latents_of(u):
        latents = [u[0]]
        for level, noise in zip(levels, u[1:], strict=True):
            latents.append(level.prior(latents[-1]).at(noise))
        return latents

    def start(indices, seed, chains):
        top = tf.map_fn(
            lambda index: prior.sample(chains, seed=seeds.fold_in(seed, index)),
            indices,
            fn_output_signature=tf.TensorSpec([chains, prior.event_shape[0]], prior.dtype),
        )
        return [tf.transpose(top, [1, 0, 2]), *noise_of(seed, indices, chains, 1, levels, prior.dtype)[1:]]

    def densities(u):
        log_start = prior.log_prob(u[0])
        log_start += _log_normal(u[1:]) if levels else 0.0
        return log_start, decoder(*latents_of(u)).log_prob(x)

    def of_latents(latents):
        below = [level.prior(above) for level, above in zip(levels, latents[:-1], strict=True)]
        return [latents[0], *(p.noise_at(z) for p, z in zip(below, latents[1:], strict=True))]

    return Path(start, densities, of_latents)


def _log_normal(u: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the standard normal log-density without its constant, [M, B]."""
    return -0.5 * tf.add_n([tf.reduce_sum(of_layer**2, axis=-1) for of_layer in u])


def seen(path: Path, at: Sequence[tf.Tensor]) -> State:
    """Returns the chains at u, with their densities and gradients."""
    at = list(at)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(at)
        log_start, log_ratio = path.densities(at)
    return State(at, log_start, log_ratio, tape.gradient(log_start, at), tape.gradient(log_ratio, at))


def move(
    path: Path,
    state: State,
    beta: tf.Tensor,
    step: tf.Tensor,
    momenta: Sequence[tf.Tensor],
    uniform: tf.Tensor,
    leapfrogs: int,
) -> tuple[State, tf.Tensor]:
    """Makes a Hamiltonian move that leaves p_0 w^beta invariant: Neal (2011), section 3.

    Args:
      path, state: the path, and the chains on it.
      beta: inverse temperature, [].
      step: size of a leapfrog step for each image, [B].
      momenta: standard normal draws [M, B, D] for each layer.
      uniform: uniform draws [2, M, B] in (0, 1), for the jitter of the step and for accepting.
      leapfrogs: number of leapfrog steps.

    Returns:
      the chains after the move, and the probability of accepting the move of each, [M, B].
    """
    step = step * (1.0 + JITTER * (2.0 * uniform[0] - 1.0))  # [M, B]
    wide = step[..., tf.newaxis]

    def energy(state, momenta):
        return state.log_start + beta * state.log_ratio + _log_normal(momenta)

    def kicked(momenta, state, by):
        slopes = zip(momenta, state.start_slopes, state.ratio_slopes, strict=True)
        return [momentum + by * (start + beta * ratio) for momentum, start, ratio in slopes]

    def leapfrog(index, new, moving):
        moving = kicked(moving, new, 0.5 * wide)
        new = seen(path, [at + wide * momentum for at, momentum in zip(new.at, moving, strict=True)])
        return index + 1, new, kicked(moving, new, 0.5 * wide)

    start = (tf.constant(0), state, list(momenta))
    _, new, moving = tf.while_loop(
        lambda index, *_: index < leapfrogs, leapfrog, start, parallel_iterations=1
    )
    gained = energy(new, moving) - energy(state, momenta)
    gained = tf.where(tf.math.is_finite(gained), gained, -np.inf)
    accepted = tf.math.log(uniform[1]) < gained

    def chosen(after, before):
        return tf.where(accepted if after.shape.rank == 2 else accepted[..., tf.newaxis], after, before)

    return tf.nest.map_structure(chosen, new, state), tf.exp(tf.minimum(gained, 0.0))


def schedule(steps: int) -> np.ndarray:
    """Returns inverse temperatures [T + 1] from 0 to 1, close together at both ends: Wu and others (2017), section 5.1."""
    sigmoid = 1.0 / (1.0 + np.exp(-STEEPNESS * np.linspace(-1.0, 1.0, steps + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


class Programs(NamedTuple):
    """The functions that are compiled once for all blocks of images.

    Attributes:
      start: a function from a block, a seed and M to chains in p_0.
      back: a function from a block and latents [M, B, D], the top ones first, to chains at these
        latents.
      move: a function from a block, chains, an inverse temperature, step sizes [B], a seed and the
        number of the move to the chains after the move and the probabilities of accepting it, [M,
        B].
    """

    start: Callable
    back: Callable
    move: Callable


class Block(NamedTuple):
    """A block of images: their indices [B], x [B, H, W, C], the proposals to start from, and p(z)."""

    indices: tf.Tensor
    x: tf.Tensor
    proposal: Proposal
    prior: Any


def programs(model: Evaluable, kind: str, leapfrogs: int) -> Programs:
    """Returns the programs that run chains from `kind`: "prior", or any other proposal.

    They do not use XLA: on two cores, a move of 1600 chains takes as long or longer with it, and
    compiling takes 6 s more.
    """
    levels = levels_of(model)

    def path(block: Block) -> Path:
        if kind == "prior":
            return from_prior(block.x, block.prior, model.likelihood, levels)
        return from_proposal(block.proposal, block.x, block.prior, model.likelihood, levels)

    def start(block, seed, chains):
        return seen(path(block), path(block).start(block.indices, seed, chains))

    def back(block, latents):
        return seen(path(block), path(block).of_latents(latents))

    def moved(block, state, beta, step, seed, index):
        momenta, uniform = _draws(block.indices, seeds.fold_in(seed, index), state)
        return move(path(block), state, beta, step, momenta, uniform, leapfrogs)

    return Programs(*(traced(function) for function in (start, back, moved)))


def _draws(indices: tf.Tensor, seed: tf.Tensor, state: State) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Returns momenta [M, B, D] for each layer and uniform numbers [2, M, B], by image from the seed of its index."""
    chains, dims = state.at[0].shape[0], [of_layer.shape[-1] for of_layer in state.at]
    dtype = state.at[0].dtype
    draws = tf.map_fn(
        lambda index: seeds.uniform([chains, sum(dims) + 2], seeds.fold_in(seed, index), dtype),
        indices,
        fn_output_signature=tf.TensorSpec([chains, sum(dims) + 2], dtype),
    )
    draws = tf.transpose(draws, [1, 0, 2])
    *momenta, uniform = tf.split(draws, [*dims, 2], axis=-1)
    return [seeds.normal_of(of_layer) for of_layer in momenta], tf.transpose(uniform, [2, 0, 1])


def learned_steps(
    run: Programs, block: Block, chains: int, betas: np.ndarray, seed: tf.Tensor, tick
) -> np.ndarray:
    """Returns step sizes [T + 1, B] for each inverse temperature and image, from chains that are used for nothing else.

    The chains of the estimate then move with steps that do not depend on their own past, so that
    their weights stay unbiased.
    """
    state = run.start(block, seed, chains)
    step = np.full(block.indices.shape[0], FIRST_STEP, np.float32)
    steps = np.tile(step, (len(betas), 1))
    for index in range(-SETTLING, len(betas)):
        at = max(index, min(1, len(betas) - 1))
        state, accepted = _moved(run, block, state, betas[at], step, seed, index + SETTLING)
        step = step * np.exp(LEARNED * (accepted.numpy().mean(axis=0) - ACCEPTED))
        if index >= 0:
            steps[index] = step
            tick()
    return steps


def anneal(
    run: Programs, block: Block, state: State, betas: np.ndarray, steps: np.ndarray, seed: tf.Tensor, tick
) -> np.ndarray:
    """Moves chains along inverse temperatures; returns the sums of (beta_{t+1} - beta_t) log w, [M, B], float64.

    Args:
      betas: [T + 1], from 0 to 1, or from 1 to 0.
      steps: step sizes [T + 1, B], in the same order.
    """
    log_weights = np.zeros(state.log_ratio.shape)
    for index, beta in enumerate(betas[:-1]):
        if index:
            state, _ = _moved(run, block, state, beta, steps[index], seed, index)
        log_weights += (betas[index + 1] - beta) * state.log_ratio.numpy().astype(np.float64)
        tick()
    return log_weights


def _moved(
    run: Programs, block: Block, state: State, beta: float, step: np.ndarray, seed: tf.Tensor, index: int
):
    """Makes a move with its numbers as tensors, so that new values do not trace it again."""
    beta, step = (tf.constant(value, state.at[0].dtype) for value in (beta, step))
    return run.move(block, state, beta, step, seed, tf.constant(index, tf.int32))


def annealed(
    model: Evaluable,
    parts: Iterable[Part],
    total: int,
    event_shape: tuple[int, ...],
    prior,
    how: Estimation,
    seed: int,
    kept: Kept,
    advance: Callable[[int, int], None],
    latents: Sequence[tf.Tensor] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns log-weights [M, N] of chains that end at p(z | x); the mean weight is unbiased for p(x).

    Args:
      parts, total, event_shape: the images, their number, and the shape [H, W, C] of one.
      latents: draws [N, D] from p(z | x), the top ones first, or None.

    Returns:
      the log-weights; and those of chains from `latents` back to the start, whose mean weight is
      unbiased for 1 / p(x) (for no image if there are no latents).
    """
    run = programs(model, str(how.proposal), how.leapfrogs)
    betas = schedule(how.steps)
    size = max(1, min(AT_ONCE, total, rows_of_gradients(model, event_shape, how.max_bytes) // how.chains))
    pilots = min(PILOTS, how.chains)
    passes = 2 if latents is None else 3
    streams = [seeds.stateless(seed, name) for name in ("pilot", "anneal", "anneal back")]

    def of_block(
        part: Part, proposal: Callable[[], Proposal], first: int, count: int
    ) -> dict[str, np.ndarray]:
        chosen = padded(first, count, size)
        images, drawn_from = taken((part.x, proposal()), chosen)
        block = Block(chosen + part.first, images, drawn_from, prior)
        ticks = itertools.count(1)

        def tick():
            share = min(next(ticks) / (passes * (how.steps + 1)), 1.0)
            advance(part.done((first + count * share) / len(part.x)), total)

        steps = learned_steps(run, block, pilots, betas, streams[0], tick)
        state = run.start(block, streams[1], how.chains)
        arrays = {"forward": anneal(run, block, state, betas, steps, streams[1], tick)[:, :count]}
        if latents is not None:
            exact = [
                tf.tile(tf.gather(of_layer, block.indices)[tf.newaxis], [how.chains, 1, 1])
                for of_layer in latents
            ]
            state = run.back(block, exact)
            back = anneal(run, block, state, betas[::-1], steps[::-1], streams[2], tick)
            arrays["backward"] = back[:, :count]
        return arrays

    results = by_blocks(parts, size, "chains", total, kept, advance, of_block)
    none = np.zeros((how.chains, 0))
    forward, backward = (
        np.concatenate([block.get(name, none) for block in results], axis=1)
        for name in ("forward", "backward")
    )
    return forward, backward
