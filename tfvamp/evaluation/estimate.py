"""Estimates of log p(x), and what is known about their errors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from tfvamp.evaluation.tails import TRUSTED, pareto_k

GROUPS = (2, 4, 8, 16)  # numbers of parts into which the samples are split, to see how the estimate varies
DECADES = 3  # points of the curve: S / 100, S / 10, S
RISING = 0.1  # nats per tenfold number of samples; above it there is a warning


class Point(NamedTuple):
    """The estimate that fewer samples would give on average.

    Attributes:
      num_samples: number of samples.
      mean: mean of the estimated log p(x) over the images, in nats.
      error: standard deviation of `mean` over other draws.
    """

    num_samples: int
    mean: float
    error: float | None


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """Estimates of log p(x) for N images, from S samples or chains each; arrays have shape [N] and are in nats.

    Attributes:
      per_example: log 1/S sum_s w_s, w = p(x, z) / q(z | x) or the weight of a chain.
      elbo: 1/S sum_s log w_s.
      effective_sample_size: (sum_s w_s)^2 / sum_s w_s^2, from 1 to S.
      pareto_k: Pareto k of the largest weights (`tails.pareto_k`).
      group_variances: variances over estimates from S / 2, S / 4, ... samples each, [len(GROUPS),
        N].
      curve_values, curve_variances: means of estimates from fewer samples, and their variances,
        [points, N].
      num_samples: S.
      seed: seed of the samples.
      dimensions: H W C.
      estimator, proposal: how log p(x) was estimated, as in `log_likelihood`.
      reconstruction, kl: the parts of `elbo`; None for chains, which have none.
      kls: the parts of `kl`, by the name of the stochastic layer, the top one first.

    >>> from tfvamp import log_likelihood
    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(6, 5, 1), latent_dims=2, prior="standard")
    >>> result = log_likelihood(model, model.sample(5, seed=0, draw=True), num_samples=50)
    >>> result.per_example.shape, result.mean < 0.0 < result.standard_error
    ((5,), True)
    """

    per_example: np.ndarray
    elbo: np.ndarray
    effective_sample_size: np.ndarray
    pareto_k: np.ndarray
    group_variances: np.ndarray
    curve_values: np.ndarray
    curve_variances: np.ndarray
    num_samples: int
    seed: int
    dimensions: int
    estimator: str
    proposal: str
    reconstruction: np.ndarray | None = None
    kl: np.ndarray | None = None
    kls: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean over the images."""
        return float(self.per_example.mean())

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean over other images; None for one image."""
        count = len(self.per_example)
        return float(self.per_example.std(ddof=1)) / math.sqrt(count) if count > 1 else None

    @property
    def monte_carlo_error(self) -> float | None:
        """The standard deviation of the mean over other draws of the samples; None for S = 1.

        The samples of each image are split into 2, 4, 8 and 16 parts, and each part gives an
        estimate. A power law in the number of samples is fitted to the variation of these
        estimates, and extrapolates it to S. (The delta method uses the variance of the weights that
        were seen, which is too small by a factor of two if their tail is heavy.) This error does
        not contain the bias: the estimate is too low on average, which `curve` shows.
        """
        return _extrapolated(self.group_variances, self.num_samples)

    @property
    def bits_per_dim(self) -> float:
        """The mean of -log2 p(x) per pixel and channel."""
        return -self.mean / (self.dimensions * math.log(2.0))

    @property
    def curve(self) -> list[Point]:
        """The estimate as a function of the number of samples, from few to S; it rises to log p(x)."""
        count = len(self.per_example)
        sizes = curve_sizes(self.num_samples)
        points = []
        for size, values, variances in zip(sizes, self.curve_values, self.curve_variances, strict=True):
            error = self.monte_carlo_error if size == self.num_samples else math.sqrt(variances.sum()) / count
            points.append(Point(size, float(values.mean()), error))
        return points

    @property
    def slope(self) -> float | None:
        """The rise of the estimate at its end when S becomes ten times as large, in nats; None for S below 10."""
        if len(self.curve_values) < 2:
            return None
        before, last = curve_sizes(self.num_samples)[-2:]
        return float((self.curve_values[-1] - self.curve_values[-2]).mean()) / math.log10(last / before)

    def warning(self) -> str | None:
        """The reason why the number is too low, and what to do, as text; None if nothing says that it is."""
        if self.slope is None or self.slope < RISING:
            return None
        samples, better = "samples", "take more samples, or --estimator ais"
        if self.estimator == "ais":
            samples, better = "chains", "take more --steps"
        elif self.proposal == "encoder":
            better = "take --proposal refined or --estimator ais"
        return (
            f"log p(x) is higher than this: the estimate still rises by {self.slope:.2f} nats when the {samples} become "
            f"ten times as many, because few of them count: {better}"
        )

    def summary(self) -> dict[str, Any]:
        """Returns the numbers that these samples give for evaluation.json."""
        several, ess = len(self.kls) > 1, self.effective_sample_size
        heavy = None if np.isnan(self.pareto_k).any() else float((self.pareto_k > TRUSTED).mean())
        return {
            "estimator": self.estimator,
            "proposal": self.proposal,
            "log_likelihood": self.mean,
            "standard_error": self.standard_error,
            "monte_carlo_error": self.monte_carlo_error,
            "bits_per_dim": self.bits_per_dim,
            "elbo": float(self.elbo.mean()),
            "reconstruction": None if self.reconstruction is None else float(self.reconstruction.mean()),
            "kl": None if self.kl is None else float(self.kl.mean()),
            **({f"kl_{name}": float(kl.mean()) for name, kl in self.kls.items()} if several else {}),
            "curve": [point._asdict() for point in self.curve],
            "effective_sample_size": {
                "mean": float(ess.mean()),
                "median": float(np.median(ess)),
                "quantile_5": float(np.quantile(ess, 0.05)),
                "min": float(ess.min()),
            },
            "pareto_k": {
                "median": None if heavy is None else max(-1e3, float(np.median(self.pareto_k))),
                "above_0.7": heavy,
            },
            "num_examples": len(self.per_example),
            "num_samples": self.num_samples,
            "seed": self.seed,
            "warning": self.warning(),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the numbers of each image, [N], that are kept with an evaluation."""
        parts = {"reconstruction": self.reconstruction, "kl": self.kl}
        if len(self.kls) > 1:
            parts |= {f"kl_{name}": kl for name, kl in self.kls.items()}
        return {
            "log_likelihood": self.per_example,
            "elbo": self.elbo,
            **{name: values for name, values in parts.items() if values is not None},
            "effective_sample_size": self.effective_sample_size,
            "pareto_k": self.pareto_k,
        }


def curve_sizes(num_samples: int) -> list[int]:
    """Returns those of S / 100, S / 10 and S that are at least 1."""
    sizes = [num_samples // 10**power for power in reversed(range(DECADES))]
    return [size for size in sizes if size]


def log_means(log_weights: np.ndarray, size: int) -> np.ndarray:
    """Returns log of the mean weight of each group of `size` samples, [S // size, B], from log w [S, B]."""
    groups = len(log_weights) // size
    grouped = log_weights[: groups * size].reshape(groups, size, -1)
    return np.logaddexp.reduce(grouped, axis=1) - math.log(size)


def of_parts(reconstruction: np.ndarray, kls: np.ndarray) -> dict[str, Any]:
    """Returns the arrays of `LogLikelihood` for some images, from reconstruction [S, B] and kls [layers, S, B]."""
    kl = kls.sum(axis=0)
    return {
        **of_weights(reconstruction - kl),
        "reconstruction": reconstruction.mean(axis=0),
        "kl": kl.mean(axis=0),
        "kls": kls.mean(axis=1),
    }


def of_weights(log_weights: np.ndarray) -> dict[str, Any]:
    """Returns the arrays of `LogLikelihood` for some images, from log-weights [S, B], except the parts of the bound."""
    num_samples = len(log_weights)
    total = np.logaddexp.reduce(log_weights, axis=0)
    by_size = [log_means(log_weights, size) for size in curve_sizes(num_samples)]
    return {
        "per_example": total - math.log(num_samples),
        "elbo": log_weights.mean(axis=0),
        "effective_sample_size": np.exp(2.0 * total - np.logaddexp.reduce(2.0 * log_weights, axis=0)),
        "pareto_k": pareto_k(log_weights),
        "group_variances": np.stack(
            [
                log_means(log_weights, num_samples // groups).var(axis=0, ddof=1)
                if groups <= num_samples
                else np.full(total.shape, np.nan)
                for groups in GROUPS
            ]
        ),
        "curve_values": np.stack([values.mean(axis=0) for values in by_size]),
        "curve_variances": np.stack(
            [
                values.var(axis=0, ddof=1) / len(values) if len(values) > 1 else np.zeros(total.shape)
                for values in by_size
            ]
        ),
    }


def _extrapolated(group_variances: np.ndarray, num_samples: int) -> float | None:
    """Returns the error of the mean over N images from variances [len(GROUPS), N] of estimates with fewer samples."""
    usable = [index for index, groups in enumerate(GROUPS) if groups <= num_samples]
    if not usable:
        return None
    count = group_variances.shape[1]
    variances = group_variances[usable].sum(axis=1) / count**2
    if not (variances > 0.0).all():
        return float(math.sqrt(max(variances[0], 0.0)))
    groups = np.array(GROUPS, float)[usable]
    x, y, weights = -np.log(groups), np.log(variances), (groups - 1.0) / (groups - 1.0).sum()
    center, level = (weights * x).sum(), (weights * y).sum()
    spread = (weights * (x - center) ** 2).sum()
    # From -1, for independent weights with a variance, to 0, where more samples do not help.
    power = -0.5 if spread == 0.0 else float(np.clip((weights * (x - center) * y).sum() / spread, -1.0, 0.0))
    return float(math.exp(0.5 * (level - power * center)))
