"""Estimates of log p(x) of images, and the bracket around it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvamp import seeds
from tfvamp.blocks import rows_of
from tfvamp.config import Estimation
from tfvamp.devices import full_float32
from tfvamp.errors import UsageError
from tfvamp.evaluation import estimate, proposals
from tfvamp.evaluation.annealing import annealed
from tfvamp.evaluation.estimate import LogLikelihood
from tfvamp.evaluation.images import as_images, encode
from tfvamp.evaluation.importance import importance_sampling
from tfvamp.evaluation.needs import check_memory, latent_dims
from tfvamp.evaluation.protocol import Evaluable, check, is_convolutional, latent_names, levels_of, prior_of
from tfvamp.evaluation.refining import in_parts
from tfvamp.evaluation.sharing import Kept


def log_likelihood(
    model: Evaluable,
    x,
    num_samples: int = 5000,
    estimator: str = "importance",
    seed: int = 0,
    proposal: str | None = "encoder",
    rows: int | None = None,
    kept: Kept | None = None,
    jit: bool = False,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> LogLikelihood:
    """Estimates log p(x) of each image.

    The estimator "importance" draws S samples from a proposal (Burda, Grosse and Salakhutdinov
    2016, equation 8). "ais" moves chains from the proposal to p(z | x) (annealed importance
    sampling: Neal 2001; Wu and others 2017). Whatever the proposal, the mean weight is unbiased for
    p(x), and its logarithm is too low on average, by much if few samples dominate. With
    `proposal="refined"`, the parameters of q are first fitted to each image by gradient steps on
    its evidence lower bound; the estimate then uses new samples.

    The result for an image depends on its place in `x`, because its samples come from the seed of
    its index. It does not depend on the other images in any other way.

    Args:
      model: a model with the interface of `Evaluable`.
      x: images [N, H, W, C] in [0, 1], or `tf.data` of images [H, W, C].
      num_samples: S, the number of importance samples per image.
      estimator: "importance" or "ais".
      seed: seed of the samples.
      proposal: "encoder" for q(z | x), as in published numbers; "refined" for one fitted to each
        image; "prior" for p(z) (with "ais"); None for the default of `tfvamp evaluate`.
      rows: number of latents decoded at a time; None for as many as `max_memory` allows.
      kept: a dictionary of finished blocks of images. With the dictionary of a call that was
        stopped, and the same arguments otherwise, these blocks are not computed again.
      jit: whether to compile importance sampling with XLA, which takes longer on a CPU.
      say: a function that gets one line of text if XLA is given up, or if refined proposals have
        not converged.
      advance: a function that gets the number of images done, and the number of all images.
      settings: other settings of `tfvamp.config.Estimation`: `max_memory` in GiB; with refined
        proposals, `refine_steps`, `refine_step_size` and `refine_samples` (number of gradient steps
        of Adam, their size, and latents per step); with "ais", `chains`, `steps` and `leapfrogs`
        (chains per image, inverse temperatures, and leapfrog steps per move).

    Raises:
      UsageError: the estimator or the proposal is unknown, a number is below 1, or there are no
        images.

    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(6, 5, 1), latent_dims=2, prior="standard")
    >>> images = model.sample(5, seed=0, draw=True)
    >>> log_likelihood(model, images, num_samples=50).per_example.shape
    (5,)
    """
    how = Estimation(samples=num_samples, estimator=estimator, proposal=proposal, **settings)
    how.check_effect(settings)
    if rows is not None and rows < 1:
        raise UsageError(f"the number of rows must be at least 1; got {rows}")
    return estimated(model, x, how, seed, rows, kept, jit, say, advance)


@full_float32()
def estimated(
    model: Evaluable,
    x,
    how: Estimation,
    seed: int = 0,
    rows: int | None = None,
    kept: Kept | None = None,
    jit: bool = False,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> LogLikelihood:
    """Estimates log p(x) of each image with the settings `how`; the other arguments are those of `log_likelihood`."""
    check(model)
    if how.estimator == "bdmc":
        raise UsageError("the estimator bdmc makes its own images: tfvamp.evaluation.bracket")
    how = how.resolve(is_convolutional(model))
    kept = {} if kept is None else kept
    x = as_images(x, model)
    event_shape, prior = tuple(x.shape[1:]), prior_of(model)
    check_memory(latent_dims(model, prior), how)
    start = proposals.of_encoder(encode(model, x)[0])
    parts = in_parts(model, x, start, prior, how, seed, kept, say, advance)
    known: dict[str, Any] = {
        "seed": seed,
        "dimensions": math.prod(event_shape),
        "estimator": how.estimator,
        "proposal": how.proposal,
    }
    if how.estimator == "ais":
        log_weights, _ = annealed(model, parts, len(x), event_shape, prior, how, seed, kept, advance)
        return LogLikelihood(**estimate.of_weights(log_weights), num_samples=how.chains, **known)
    rows = rows_of(model, event_shape, how.max_bytes) if rows is None else rows
    dims = start.loc.shape[1]
    arrays = importance_sampling(model, parts, len(x), dims, prior, how, seed, rows, kept, jit, say, advance)
    kls = dict(zip(latent_names(model), arrays.pop("kls"), strict=True))
    return LogLikelihood(**arrays, kls=kls, num_samples=how.samples, **known)


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Bounds on log p(x) of images that the model itself generated, in nats: Grosse, Ghahramani and Adams (2015).

    Attributes:
      images: the images, [N, H, W, C].
      lower: the estimate of annealed importance sampling, too low on average.
      upper: the estimate of chains that go back from the latents of the images, [N]; too high on
        average.
      chains: the log-weights of these chains, [M, N], whose negatives are also too high on average.

    >>> from tfvamp import evaluation
    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(6, 5, 1), latent_dims=2, prior="standard")
    >>> between = evaluation.bracket(model, 2, chains=1, steps=2, leapfrogs=1)
    >>> between.lower.per_example.shape, between.upper.shape
    ((2,), (2,))
    """

    images: np.ndarray
    lower: LogLikelihood
    upper: np.ndarray
    chains: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """The distance of the bounds of each image, [N]."""
        return self.upper - self.lower.per_example

    @property
    def gap(self) -> float:
        """The mean of `gaps`, which bounds the mean error of either."""
        return float(self.gaps.mean())

    @property
    def gap_error(self) -> float | None:
        """The standard error of `gap` over images; None for one image."""
        gaps = self.gaps
        return float(gaps.std(ddof=1)) / math.sqrt(len(gaps)) if len(gaps) > 1 else None


def bracket(
    model: Evaluable,
    num_images: int = 100,
    seed: int = 0,
    proposal: str | None = "encoder",
    kept: Kept | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> Bracket:
    """Bounds log p(x) from both sides by bidirectional Monte Carlo: Grosse, Ghahramani and Adams (2015).

    The images are generated by the model, so that an exact draw from p(z | x) is known for each
    image: the latents that it was made from. Chains from these latents back to the start have
    weights that are unbiased for 1 / p(x). The gap between the two bounds tells how far
    `log_likelihood` with the same settings can be trusted on images like these. It tells nothing
    about images that the model would not generate.

    Args:
      num_images: N, number of images.
      proposal: where chains start, as for `log_likelihood`.
      seed, kept, say, advance, settings: as for `log_likelihood`.
    """
    how = Estimation(estimator="bdmc", proposal=proposal, **settings)
    how.check_effect(settings)
    return bracketed(model, num_images, how, seed, kept, say, advance)


@full_float32()
def bracketed(
    model: Evaluable,
    num_images: int,
    how: Estimation,
    seed: int = 0,
    kept: Kept | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Bracket:
    """Bounds log p(x) with the settings `how`; the other arguments are those of `bracket`."""
    check(model)
    how = how.resolve(is_convolutional(model))
    if num_images < 1:
        raise UsageError(f"the number of images must be at least 1; got {num_images}")
    kept = {} if kept is None else kept
    prior = prior_of(model)
    latents, x = simulated(model, prior, num_images, seed)
    parts = in_parts(
        model, x, proposals.of_encoder(encode(model, x)[0]), prior, how, seed, kept, say, advance
    )
    event_shape = tuple(x.shape[1:])
    check_memory(latent_dims(model, prior), how)
    forward, backward = annealed(model, parts, len(x), event_shape, prior, how, seed, kept, advance, latents)
    lower = LogLikelihood(
        **estimate.of_weights(forward),
        num_samples=how.chains,
        seed=seed,
        dimensions=math.prod(x.shape[1:]),
        estimator="ais",
        proposal=str(how.proposal),
    )
    return Bracket(x.numpy(), lower, -estimate.log_means(backward, how.chains)[0], backward)


def simulated(model: Evaluable, prior, num_images: int, seed: int) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Returns latents [N, D] of each layer drawn from the model, and images [N, H, W, C] of p(x | z) at them."""
    base = seeds.stateless(seed, "simulate")
    latents = [prior.sample(num_images, seed=base)]
    for level in levels_of(model):
        below = level.prior(latents[-1])
        latents.append(below.at(seeds.normal([num_images, level.dims], seeds.fold_in_name(base, level.name))))
    return latents, model.likelihood(*latents).sample(seed=seeds.fold_in_name(base, "pixels"))
