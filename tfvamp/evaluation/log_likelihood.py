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
from tfvamp.blocks import images_at_once, rows_of
from tfvamp.errors import UsageError
from tfvamp.evaluation.diagnostics import active_units
from tfvamp.graph import compiled
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.models import LatentVariableModel


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Estimates for N images from the same S samples each; arrays are [N], in nats.

    Attributes:
      log_likelihood: log 1/S sum_s p(x, z_s) / q(z_s | x).
      elbo, reconstruction, kl: means over the S samples.
      kls: the parts of `kl`, by the name of the stochastic layer, the top one first.
      effective_sample_size: (sum_s w_s)^2 / sum_s w_s^2, from 1 to S.
      num_samples: S.
      seed: of the samples.
      dimensions: H W C.
      active_units: by stochastic layer, the latents with Var_x(E_q[z | x]) >= 0.01; below the top
        layer the posterior is taken at the means of the latents above.
    """

    log_likelihood: np.ndarray
    elbo: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    kls: dict[str, np.ndarray]
    effective_sample_size: np.ndarray
    num_samples: int
    seed: int
    dimensions: int
    active_units: dict[str, int]

    def summary(self) -> dict[str, Any]:
        """The numbers of evaluation.json that these samples give."""
        count = len(self.log_likelihood)
        several = len(self.kls) > 1
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
            **({f"kl_{name}": float(kl.mean()) for name, kl in self.kls.items()} if several else {}),
            "effective_sample_size": {
                "mean": float(self.effective_sample_size.mean()),
                "min": float(self.effective_sample_size.min()),
            },
            "active_units": self.active_units if several else sum(self.active_units.values()),
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
    model: LatentVariableModel,
    images: tf.data.Dataset,
    num_samples: int = 5000,
    seed: int = 0,
    rows: int | None = None,
    jit: bool = True,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Estimates log p(x) of each image with q(z | x) as the proposal.

    Args:
      model: a model with a `tfd` for encoder, decoder and prior, and `levels`.
      images: `tf.data` of images [H, W, C].
      num_samples: S.
      seed: an integer.
      rows: latents decoded at a time; None for what memory bears (`rows_of`).
      jit: compile with XLA.
      say: told in one line when XLA is given up.
      advance: told how many images are done, and of how many.

    Raises:
      UsageError: S or rows below 1, or no images.
    """
    if num_samples < 1 or (rows is not None and rows < 1):
        raise UsageError(
            f"the number of samples and of rows must be at least 1; got {num_samples} and {rows}"
        )
    all_images = list(images.batch(images_at_once(model, tuple(images.element_spec.shape))))
    if not all_images:
        raise UsageError("there are no images to evaluate")
    x = tf.concat(all_images, axis=0)
    rows = rows_of(model, x.shape[1:]) if rows is None else rows
    posteriors = encode(model, all_images)
    posterior, levels = posteriors[0], model.levels
    prior = model.prior()
    base, latent_dims = seeds.stateless(seed, "evaluate"), posterior.event_shape[0]
    draw = compiled(lambda indices: noise_of(base, indices, num_samples, latent_dims, levels), jit, say)
    decoded = compiled(
        lambda loc, log_variance, x, noise, prior: weight_parts(
            DiagonalGaussian(loc, log_variance), objectives.Generator(prior, model.decoder, levels), x, noise
        ),
        jit,
        say,
    )
    results: list[np.ndarray] = []
    batch = max(1, rows // num_samples)
    for start in range(0, len(x), batch):
        stop = min(start + batch, len(x))
        noise = draw(tf.range(start, stop))  # [S, B, D] for each layer
        chunk = max(1, rows // (stop - start))
        chunks = [
            decoded(
                posterior.loc[start:stop],
                posterior.log_variance[start:stop],
                x[start:stop],
                [of_layer[first : first + chunk] for of_layer in noise],
                prior,
            )
            for first in range(0, num_samples, chunk)
        ]
        parts = np.concatenate(chunks, axis=1).astype(np.float64)  # [1 + layers, S, B]
        results.append(_estimates(parts[0], parts[1:]))
        advance(stop, len(x))
    log_likelihood, elbo, reconstruction, kl, effective_sample_size, *kls = np.concatenate(results, axis=1)
    return Evaluation(
        log_likelihood=log_likelihood,
        elbo=elbo,
        reconstruction=reconstruction,
        kl=kl,
        kls=dict(zip(model.latent_names, kls, strict=True)),
        effective_sample_size=effective_sample_size,
        num_samples=num_samples,
        seed=seed,
        dimensions=math.prod(x.shape[1:]),
        active_units={
            name: active_units(of_layer.loc.numpy())
            for name, of_layer in zip(model.latent_names, posteriors, strict=True)
        },
    )


def encode(model: LatentVariableModel, batches) -> list[DiagonalGaussian]:
    """The posteriors of all images of some batches, batch shape [N], one for each stochastic layer.

    The top layer's comes first; those below it are taken at the means of the latents above.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def encoder(x):
        posteriors = [as_diagonal_gaussian(model.encoder(x, training=False))]
        for level in model.levels:
            posteriors.append(level.posterior(x, posteriors[-1].loc))
        return posteriors

    by_batch = [encoder(images) for images in batches]
    return [
        DiagonalGaussian(
            tf.concat([posterior.loc for posterior in of_layer], axis=0),
            tf.concat([posterior.log_variance for posterior in of_layer], axis=0),
        )
        for of_layer in zip(*by_batch, strict=True)
    ]


def noise_of(
    base: tf.Tensor, indices: tf.Tensor, num_samples: int | tf.Tensor, latent_dims: int, levels
) -> list[tf.Tensor]:
    """Standard normal draws [S, B, D] for each layer; those of an image from the seed of its index."""

    def draws(dims: int, seed: tf.Tensor) -> tf.Tensor:
        noise = tf.map_fn(
            lambda index: seeds.normal([num_samples, dims], seeds.fold_in(seed, index)),
            indices,
            fn_output_signature=tf.TensorSpec(
                [num_samples if isinstance(num_samples, int) else None, dims], tf.float32
            ),
        )
        return tf.transpose(noise, [1, 0, 2])

    return [
        draws(latent_dims, base),
        *(draws(level.dims, seeds.fold_in_name(base, level.name)) for level in levels),
    ]


def weight_parts(posterior: DiagonalGaussian, generator: objectives.Generator, x, noise) -> tf.Tensor:
    """log p(x | z), and the KL of each layer, [1 + layers, S, B]."""
    latents, posteriors = objectives.infer(posterior, generator.levels, x, noise)
    at = objectives.parts(latents, posteriors, generator, x)
    return tf.stack([at.reconstruction, *at.kls])


def _estimates(reconstruction: np.ndarray, kls: np.ndarray) -> np.ndarray:
    """Log-likelihood, elbo, reconstruction, kl, effective sample size, and the kl of each layer, [5 + layers, B].

    From reconstruction [S, B] and kls [layers, S, B].
    """
    kl = kls.sum(axis=0)
    log_weights = reconstruction - kl
    total = scipy.special.logsumexp(log_weights, axis=0)
    return np.stack(
        [
            total - math.log(len(log_weights)),
            log_weights.mean(axis=0),
            reconstruction.mean(axis=0),
            kl.mean(axis=0),
            np.exp(2.0 * total - scipy.special.logsumexp(2.0 * log_weights, axis=0)),
            *kls.mean(axis=1),
        ]
    )
