"""log p(x) by importance sampling, image by image, from the encoder's q(z | x) or a refined one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfvamp import memory, objectives, seeds
from tfvamp.blocks import ROWS, images_at_once, rows_of
from tfvamp.config import PROPOSALS, REFINE_SAMPLES, REFINE_STEP_SIZE, REFINE_STEPS
from tfvamp.errors import UsageError, check_choice
from tfvamp.evaluation import estimate, proposals
from tfvamp.evaluation.estimate import LogLikelihood
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, latent_names, levels_of, posterior_of, prior_of
from tfvamp.graph import compiled
from tfvamp.layers.gaussian import DiagonalGaussian

ESTIMATORS = ("importance",)
AT_ONCE = 100  # images encoded or refined at a time
WEIGHED = 16  # images weighed at a time at most: a block is padded to its size, however few images there are
MOST_SAMPLES = ROWS  # per image and refinement step: as many latents as are decoded at a time
LATENTS = 80  # of one image, for an estimate of memory


def log_likelihood(
    model: Evaluable,
    x,
    num_samples: int = 5000,
    estimator: str = "importance",
    seed: int = 0,
    proposal: str = "encoder",
    refine_steps: int = REFINE_STEPS,
    refine_step_size: float = REFINE_STEP_SIZE,
    refine_samples: int = REFINE_SAMPLES,
    rows: int | None = None,
    jit: bool = True,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> LogLikelihood:
    """Estimates log p(x) of each image: Burda, Grosse and Salakhutdinov (2016), equation 8.

    Whatever the proposal, the mean weight is unbiased for p(x), and its logarithm is too low on average: by much where
    few samples count. With `proposal="refined"`, the parameters of q are first fitted to each image by gradient steps
    on its evidence lower bound; the samples are new ones.

    The result of an image depends on its place in `x` (its samples come from the seed of its index), and on nothing
    else of the other images.

    Args:
      model: see `Evaluable`.
      x: images [N, H, W, C] in [0, 1], or `tf.data` of images [H, W, C].
      num_samples: S, the number of importance samples per image.
      estimator: "importance".
      seed: of the samples.
      proposal: "encoder" for q(z | x), "refined" for one fitted to each image.
      refine_steps, refine_step_size, refine_samples: gradient steps of Adam, their size, and the latents per step.
      rows: number of latents decoded at a time; None for what memory bears.
      jit: compile with XLA what is not a loop of gradient steps.
      say: told in one line when XLA is given up, or when refined proposals have not converged.
      advance: told how many images are done, and of how many.

    Raises:
      UsageError: an unknown estimator or proposal, a number below 1, or no images.

    >>> log_likelihood(model, images, num_samples=500).mean  # doctest: +SKIP
    -96.3
    """
    check_choice("estimator", estimator, ESTIMATORS)
    check_choice("proposal", proposal, PROPOSALS)
    if num_samples < 1 or (rows is not None and rows < 1):
        raise UsageError(
            f"the number of samples and of rows must be at least 1; got {num_samples} and {rows}"
        )
    check_refinement(refine_steps, refine_step_size, refine_samples)
    x = as_images(x)
    event_shape, levels = tuple(x.shape[1:]), levels_of(model)
    rows = rows_of(model, event_shape) if rows is None else rows
    prior, base = prior_of(model), seeds.stateless(seed, "evaluate")
    start = proposals.of_encoder(encode(model, x)[0], levels)
    if proposal == "refined":
        settings = (refine_steps, refine_step_size, refine_samples)
        start = _refined(model, x, start, prior, seed, *settings, say, advance)
    latent_dims = start.loc.shape[1]
    draw = compiled(lambda indices: noise_of(base, indices, num_samples, latent_dims, levels), jit, say)
    decoded = compiled(
        lambda proposal, x, noise, prior: _stacked(
            proposals.log_weight_parts(proposal, x, noise, prior, model.likelihood, levels)
        ),
        jit,
        say,
    )
    results: list[dict[str, np.ndarray]] = []
    batch = max(1, min(WEIGHED, rows // num_samples))
    for first in range(0, len(x), batch):
        count = min(batch, len(x) - first)
        chosen = _padded(first, count, batch)
        part, images = _taken((start, x), chosen)
        noise = draw(chosen)  # [S, B, D] for each layer
        chunk = max(1, rows // batch)
        chunks = [
            decoded(part, images, [of_layer[at : at + chunk] for of_layer in noise], prior)
            for at in range(0, num_samples, chunk)
        ]
        parts = np.concatenate(chunks, axis=1).astype(np.float64)  # [1 + layers, S, B]
        estimates = estimate.of_weights(parts[0], parts[1:])  # of the padding, too: sums depend on shapes
        results.append({name: values[..., :count] for name, values in estimates.items()})
        advance(first + count, len(x))
    arrays = {name: np.concatenate([one[name] for one in results], axis=-1) for name in results[0]}
    kls = dict(zip(latent_names(model), arrays.pop("kls"), strict=True))
    return LogLikelihood(
        **arrays,
        kls=kls,
        num_samples=num_samples,
        seed=seed,
        dimensions=math.prod(event_shape),
        estimator=estimator,
        proposal=proposal,
    )


def check_refinement(steps: int, step_size: float, samples: int) -> None:
    """Raises UsageError for settings that no refinement can have, or whose noise memory cannot hold."""
    if steps < 1 or samples < 1:
        raise UsageError(
            f"the numbers of refinement steps and samples must be at least 1; got {steps} and {samples}"
        )
    if not 0.0 < step_size < math.inf:
        raise UsageError(f"the step size of the refinement must be a positive number; got {step_size:g}")
    if samples > MOST_SAMPLES:
        raise UsageError(f"at most {MOST_SAMPLES} samples per refinement step are possible; got {samples}")
    noise = 4.0 * steps * samples * AT_ONCE * LATENTS
    memory.check(noise, f"the noise of {steps} refinement steps", "choose fewer steps or samples")


def as_images(x) -> tf.Tensor:
    """Images [N, H, W, C], float32, from an array or from `tf.data` of images.

    Raises:
      UsageError: there are none.
    """
    if isinstance(x, tf.data.Dataset):
        batches = list(x.batch(1000))
        x = tf.concat(batches, axis=0) if batches else tf.zeros([0])
    x = tf.cast(tf.convert_to_tensor(x), tf.float32)
    if not x.shape.rank or not x.shape[0]:
        raise UsageError("there are no images to evaluate")
    return x


def encode(model: Evaluable, x: tf.Tensor) -> list[DiagonalGaussian]:
    """The posteriors of images [N, H, W, C], batch shape [N], one for each stochastic layer.

    The top layer's comes first; those below it are taken at the means of the latents above. Images are encoded in
    blocks of one size, so that each result is the same to the last bit whatever N is.
    """
    levels = levels_of(model)

    @tf.function(autograph=False, reduce_retracing=True)
    def encoder(x):
        posteriors = [posterior_of(model, x)]
        for level in levels:
            posteriors.append(level.posterior(x, posteriors[-1].loc))
        return [(one.loc, one.log_variance) for one in posteriors]

    size = min(AT_ONCE, images_at_once(model, tuple(x.shape[1:])))
    blocks = []
    for first in range(0, len(x), size):
        count = min(size, len(x) - first)
        encoded = encoder(tf.gather(x, _padded(first, count, size)))
        blocks.append(_taken(encoded, tf.range(count)))
    joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *blocks)
    return [DiagonalGaussian(loc, log_variance) for loc, log_variance in joined]


def _refined(model, x, start: Proposal, prior, seed, steps, step_size, samples, say, advance) -> Proposal:
    """The proposals of all images, refined in blocks of one size."""
    levels, base = levels_of(model), seeds.stateless(seed, "refine")
    size = max(1, min(AT_ONCE, rows_of(model, tuple(x.shape[1:])) // samples))
    latent_dims = start.loc.shape[1]

    def step(indices, proposal, x, prior):
        noise = noise_of(base, indices, steps * samples, latent_dims, levels)
        return proposals.refine(
            proposal, x, noise, prior, model.likelihood, levels, steps, step_size, samples
        )

    # Without XLA, whose loops on a CPU compute products on one thread: 300 steps take 13 s for 100 images, not minutes.
    refine = tf.function(step, autograph=False)
    blocks, rising = [], 0
    for first in range(0, len(x), size):
        count = min(size, len(x) - first)
        chosen = _padded(first, count, size)
        part, images = _taken((start, x), chosen)
        refined, last, before = refine(chosen, part, images, prior)
        blocks.append(_taken(refined, tf.range(count)))
        rising += int(tf.reduce_sum(tf.cast((last - before)[:count] > proposals.RISEN, tf.int32)))
        advance(first + count, len(x))
    if rising:
        say(
            f"the proposals of {rising} of {len(x)} images still improved when their {steps} steps ended: "
            "more --refine-steps raise the effective sample size"
        )
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *blocks)


def _taken(tensors, indices: tf.Tensor):
    """The rows with some indices of all tensors in a structure."""
    return tf.nest.map_structure(lambda one: tf.gather(one, indices), tensors)


def _padded(first: int, count: int, size: int) -> tf.Tensor:
    """Indices of `count` images from `first` on, the last repeated up to `size`: all blocks have one shape."""
    return tf.constant(np.minimum(np.arange(first, first + size), first + count - 1), tf.int32)


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
    """log p(x | z), and the KL of each layer, [1 + layers, S, B], with the model's own posteriors."""
    latents, posteriors = objectives.infer(posterior, generator.levels, x, noise)
    return _stacked(objectives.parts(latents, posteriors, generator, x))


def _stacked(at: objectives.Parts) -> tf.Tensor:
    return tf.stack([at.reconstruction, *at.kls])
