"""Pareto k: how heavy the tail of importance weights is, and so how far an estimate can be trusted."""

from __future__ import annotations

import math

import numpy as np

FEWEST = 5  # weights in a tail; fewer cannot be fitted
TRUSTED = (
    0.7  # above this k, an average of weights converges too slowly to be useful: Vehtari and others (2024)
)


def tail_size(num_samples: int) -> int:
    """Returns the number of largest weights that make the tail, min(S / 5, 3 sqrt(S)).

    See Vehtari and others (2024), section 3.4.
    """
    return int(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Returns the shape k of a generalised Pareto distribution fitted to the largest weights of each image, [B].

    For a given k, the weights have 1/k finite moments: below 0.5 their variance is finite, above 1
    their mean is not. The fit is that of Zhang and Stephens (2009), with the weak prior of Vehtari and
    others (2024), appendix G.

    Args:
      log_weights: log w [S, B], in nats.

    Returns:
      k [B]; NaN with fewer than 25 samples, -inf if the largest weights are equal.
    """
    count = tail_size(len(log_weights))
    if count < FEWEST:
        return np.full(log_weights.shape[1], np.nan)
    largest = np.sort(log_weights, axis=0)[-count - 1 :]
    weights = np.exp(largest - largest[-1])
    excess = weights[1:] - weights[0]  # [M, B], in ascending order
    flat = excess[-1] <= 1e-12
    k = _fit(np.where(flat, np.linspace(1.0, 2.0, count)[:, np.newaxis], np.maximum(excess, 1e-300)))
    return np.where(flat, -np.inf, k)


def _fit(excess: np.ndarray) -> np.ndarray:
    """Returns k [B] from ascending excesses over the threshold [M, B]: a mean over a grid, weighted by likelihood."""
    count = len(excess)
    size = 30 + int(math.sqrt(count))
    quarter = excess[max(0, int(count / 4 + 0.5) - 1)]
    steps = 1.0 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))
    theta = steps[:, np.newaxis] / (3.0 * quarter) + 1.0 / excess[-1]  # [G, B]
    shapes = np.stack([np.log1p(-row * excess).mean(axis=0) for row in theta])
    log_likelihood = count * (np.log(-theta / shapes) - shapes - 1.0)
    weights = np.exp(log_likelihood - log_likelihood.max(axis=0))
    theta = (weights * theta).sum(axis=0) / weights.sum(axis=0)
    k = np.log1p(-theta * excess).mean(axis=0)
    return (count * k + 10 * 0.5) / (count + 10)
