"""The test log-likelihood by importance sampling, with its errors, image by image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import tensorflow as tf

from tfvamp import objectives, seeds
from tfvamp.errors import UsageError
from tfvamp.evaluation.diagnostics import active_units
from tfvamp.graph import compiled
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.models import VAE

# Latents decoded at a time: bounds memory to [ROWS, H W C] and [ROWS, K]. On two cores 2500 take 70 ms for
# S = 5000, K = 500; 5000 take 100, 1250 take 80 (measured, not explained).
ROWS = 2500


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Estimates for N images from the same S samples each; arrays are [N], in nats.

    Attributes:
      log_likelihood: log 1/S sum_s p(x, z_s) / q(z_s | x).
      elbo, reconstruction, kl: means over the S samples.
      effective_sample_size: (sum_s w_s)^2 / sum_s w_s^2, from 1 to S.
      num_samples: S.
      seed: of the samples.
      dimensions: H W C.
      active_units: latents with Var_x(E_q[z | x]) >= 0.01.
    """

    log_likelihood: np.ndarray
    elbo: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    effective_sample_size: np.ndarray
    num_samples: int
    seed: int
    dimensions: int
    active_units: int

    def summary(self) -> dict[str, Any]:
        """The numbers of evaluation.json that these samples give."""
        count = len(self.log_likelihood)
        mean = float(self.log_likelihood.mean())
        spread = float(self.log_likelihood.std(ddof=1)) if count > 1 else None
        return {
            "log_likelihood": mean,
            "standard_error": None if spread is None else spread / math.sqrt(count),
            "monte_carlo_error": self.monte_carlo_error,
            "bits_per_dim": -mean / (self.dimensions * math.log(2.0)),
            "elbo": float(self.elbo.mean()),
            "reconstruction": float(self.reconstruction.mean()),
            "kl": float(self.kl.mean()),
            "effective_sample_size": {
                "mean": float(self.effective_sample_size.mean()),
                "min": float(self.effective_sample_size.min()),
            },
            "active_units": self.active_units,
            "num_examples": count,
            "num_samples": self.num_samples,
            "seed": self.seed,
        }

    @property
    def monte_carlo_error(self) -> float | None:
        """Standard error of the mean log-likelihood over other draws of the samples; None for S = 1.

        By the delta method Var(log mean w) = Var(w) / (S E[w]^2), estimated as 1/ESS - 1/S.
        """
        if self.num_samples == 1:
            return None
        variance = 1.0 / self.effective_sample_size - 1.0 / self.num_samples
        return float(np.sqrt(np.maximum(variance, 0.0).sum()) / len(variance))


def evaluate(
    model: VAE,
    images: tf.data.Dataset,
    num_samples: int = 5000,
    seed: int = 0,
    rows: int = ROWS,
    jit: bool = True,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Estimates log p(x) of each image with q(z | x) as the proposal.

    The samples of image n depend on (seed, n) alone: neither on `rows` nor on the other
    images. The encoder runs once for each image, the prior's components once in all.

    Args:
      model: a model with a `tfd` for encoder, decoder and prior.
      images: `tf.data` of images [H, W, C].
      num_samples: S.
      seed: an integer.
      rows: latents decoded at a time.
      jit: compile with XLA.
      say: told in one line when XLA is given up.
      advance: told how many images are done, and of how many.

    Raises:
      UsageError: S or rows below 1, or no images.
    """
    if num_samples < 1 or rows < 1:
        raise UsageError(
            f"the number of samples and of rows must be at least 1; got {num_samples} and {rows}"
        )
    all_images = list(images.batch(500))
    if not all_images:
        raise UsageError("there are no images to evaluate")
    x = tf.concat(all_images, axis=0)
    posterior = encode(model, all_images)
    prior = model.prior()
    base = seeds.stateless(seed, "evaluate")
    draw = compiled(lambda indices: _noise(base, indices, num_samples, posterior), jit, say)
    decoded = compiled(
        lambda loc, log_variance, x, noise, prior: objectives.parts(
            loc + tf.exp(0.5 * log_variance) * noise,
            DiagonalGaussian(loc, log_variance),
            model.decoder,
            prior,
            x,
        ),
        jit,
        say,
    )
    results: list[np.ndarray] = []
    batch = max(1, rows // num_samples)
    for start in range(0, len(x), batch):
        stop = min(start + batch, len(x))
        noise = draw(tf.range(start, stop))  # [S, B, D]
        chunk = max(1, rows // (stop - start))
        chunks = [
            decoded(
                posterior.loc[start:stop],
                posterior.log_variance[start:stop],
                x[start:stop],
                noise[first : first + chunk],
                prior,
            )
            for first in range(0, num_samples, chunk)
        ]
        parts = (np.concatenate(part).astype(np.float64) for part in zip(*chunks, strict=True))
        results.append(_estimates(*parts))
        advance(stop, len(x))
    log_likelihood, elbo, reconstruction, kl, effective_sample_size = np.concatenate(results, axis=1)
    return Evaluation(
        log_likelihood=log_likelihood,
        elbo=elbo,
        reconstruction=reconstruction,
        kl=kl,
        effective_sample_size=effective_sample_size,
        num_samples=num_samples,
        seed=seed,
        dimensions=math.prod(x.shape[1:]),
        active_units=active_units(posterior.loc.numpy()),
    )


def encode(model: VAE, batches) -> DiagonalGaussian:
    """The posteriors of all images of some batches, batch shape [N]."""
    encoder = tf.function(
        lambda x: as_diagonal_gaussian(model.encoder(x, training=False)),
        autograph=False,
        reduce_retracing=True,
    )
    posteriors = [encoder(images) for images in batches]
    return DiagonalGaussian(
        tf.concat([posterior.loc for posterior in posteriors], axis=0),
        tf.concat([posterior.log_variance for posterior in posteriors], axis=0),
    )


def _noise(base: tf.Tensor, indices: tf.Tensor, num_samples: int, posterior: DiagonalGaussian) -> tf.Tensor:
    """Standard normal draws [S, B, D], those of each image from a seed of its own."""
    shape = [num_samples, posterior.event_shape[0]]
    noise = tf.map_fn(
        lambda index: seeds.normal(shape, seeds.fold_in(base, index), posterior.dtype),
        indices,
        fn_output_signature=tf.TensorSpec(shape, posterior.dtype),
    )
    return tf.transpose(noise, [1, 0, 2])


def _estimates(reconstruction: np.ndarray, kl: np.ndarray) -> np.ndarray:
    """log-likelihood, elbo, reconstruction, kl and effective sample size, [5, B], from parts [S, B]."""
    log_weights = reconstruction - kl
    total = scipy.special.logsumexp(log_weights, axis=0)
    return np.stack(
        [
            total - math.log(len(log_weights)),
            log_weights.mean(axis=0),
            reconstruction.mean(axis=0),
            kl.mean(axis=0),
            np.exp(2.0 * total - scipy.special.logsumexp(2.0 * log_weights, axis=0)),
        ]
    )
