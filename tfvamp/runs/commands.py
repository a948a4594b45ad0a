"""Functions that evaluate, encode and plot a trained run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvamp import datasets, evaluation, plots
from tfvamp.config import Estimation
from tfvamp.errors import RunError
from tfvamp.evaluation.sharing import Shared, ShareDone, share_of
from tfvamp.files import replace_file
from tfvamp.layers import DiagonalGaussian, MixturePriorLayer
from tfvamp.runs import history
from tfvamp.runs import pictures as pictures_of
from tfvamp.runs.run import Run, as_run
from tfvamp.runs.unfinished import Unfinished

SIMULATED = 100  # default number of images that a model makes for bounds from both sides
NUM_SHOWN = 64  # images in a picture
NUM_MAPPED = 1000  # test images whose posterior means are drawn
NUM_DRAWN = 1000  # latents from which the density of a prior that is not a mixture is drawn


def evaluate(
    run: Run | str | os.PathLike,
    num_samples: int = Estimation.samples,
    split: datasets.SplitName = "test",
    limit: int | None = None,
    seed: int = 0,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    share: str | None = None,
    **settings: Any,
) -> dict[str, Any] | None:
    """Evaluates a run; writes evaluation.json and log_likelihood.npz (-SPLIT for other splits).

    Every evaluation is kept in the folder `evaluations` of the run. An evaluation that was stopped,
    or even killed, continues where it was when it is started again with the same arguments, and
    gives the same numbers.

    Args:
      run: the run, or its folder.
      num_samples: S, the number of importance samples per image.
      split: "train", "validation" or "test".
      limit: maximum number of images.
      seed: seed of the samples.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`.
      say: a function that gets one line of text about what takes long or did not converge.
      advance: a function that gets the number of images done, and the number of all images.
      share: "I/N" if N processes evaluate the run together, on one machine or on several that see
        its folder. The process with I = 1 waits for the others and writes the results. The numbers
        are those of one process.
      settings: settings of `tfvamp.log_likelihood`: `estimator`, `proposal` and so on.

    Returns:
      the contents of evaluation.json; None from a process with I > 1. Unless the estimate is
      importance sampling from the encoder's q, "encoder" has the numbers of that estimate. With
      refined proposals, "amortisation_gap" is the difference of the two ELBOs. With
      `estimator="bdmc"`, the split is "simulated", and the model generates its `limit` images (100
      by default).

    Raises:
      RunError: the run cannot be loaded, or its log-likelihood is not finite.
      FileError: the results cannot be written into its folder.
      UsageError: an argument is out of bounds, or the samples need more memory than there is.
    """
    how = Estimation(samples=num_samples, **settings)
    how.check_effect(settings)
    if how.proposal is None and any(name.startswith("refine_") for name in settings):
        how = dataclasses.replace(how, proposal="refined")
    own = share_of(share)
    run = as_run(run)
    model = run.model()
    how = how.resolve(evaluation.is_convolutional(model))
    evaluation.check_memory(
        evaluation.latent_dims(model, model.prior()), how
    )  # before the minutes that the encoder's estimate takes
    common: dict[str, Any] = {"seed": seed, "say": say, "advance": advance}
    depends_on = {
        "how": dataclasses.asdict(how),
        "seed": seed,
        "weights": run.weights_sha256,
        "tensorflow": tf.__version__,
    }

    def begin(of: dict[str, Any], example: tf.Tensor, count: int) -> Unfinished:
        run.folder.check_evaluations()
        unfinished = Unfinished(run.folder, depends_on | of)
        common["kept"] = unfinished if own is None else Shared(unfinished, own, say)
        evaluation.say_time(model, example, count // (own.count if own else 1), how, say)
        return unfinished

    try:
        if how.estimator == "bdmc":
            count = SIMULATED if limit is None else limit
            unfinished = begin({"limit": limit}, tf.zeros([1, *model.event_shape]), count)
            document, arrays = _bracketed(model, how, count, common)
        else:
            data = run.dataset(limit, dataset, data_dir, raw_dir, say)
            part = data.split(split)
            x = evaluation.as_images(part.images, model)
            digest = hashlib.sha256(x.numpy().tobytes()).hexdigest()
            unfinished = begin({"images": digest}, x[:1], len(x))
            document, arrays = _estimated(model, x, how, common)
            arrays["label"] = part.labels
            document |= {
                "dataset": data.spec.name,
                "dataset_verified": data.verified,
                "sources": data.checksums,
                "images_sha256": digest,
            }
    except ShareDone:
        return None
    images = "simulated" if how.estimator == "bdmc" else split
    used = dataclasses.asdict(how)
    del used["max_memory"]  # no number depends on it
    document |= {"settings": used, "limit": limit, "prior_density": model.prior.density}
    document |= {"split": images, "epoch": run.weights_epoch, "weights_sha256": run.weights_sha256}
    if not math.isfinite(document["log_likelihood"]):
        raise RunError(f"the log-likelihood of {run} is not finite: nothing was written")
    document = run.folder.write_evaluation(images, document, arrays)
    unfinished.finish()
    return document


def _estimated(model, x, how: Estimation, common: dict[str, Any]) -> tuple[dict, dict]:
    """Returns the document and the arrays of an evaluation of images."""
    of_encoder = dataclasses.replace(how, estimator="importance", proposal="encoder")
    own, result = _of_ways(model, x, [of_encoder, how], common)
    document, arrays = own.summary(), {}
    if how != of_encoder:
        document = {**result.summary(), "encoder": own.summary()}
        arrays = {"encoder_log_likelihood": own.per_example, "encoder_elbo": own.elbo}
        if how.estimator == "importance":
            document["amortisation_gap"] = float((result.elbo - own.elbo).mean())
    active = {
        name: evaluation.active_units(of_layer.loc.numpy())
        for name, of_layer in zip(model.latent_names, evaluation.encode(model, x), strict=True)
    }
    document["active_units"] = active if len(active) > 1 else sum(active.values())
    return document, {**result.arrays(), **arrays}


def _of_ways(model, x, ways: list[Estimation], common: dict[str, Any]) -> list[evaluation.LogLikelihood]:
    """Returns one estimate for each way; a process that does not collect computes its share of all of them.

    Raises:
      ShareDone: the process has computed its share.
    """
    found: dict[Estimation, evaluation.LogLikelihood] = {}
    for way in dict.fromkeys(ways):
        with contextlib.suppress(ShareDone):
            found[way] = evaluation.estimated(model, x, way, **common)
    if not found:
        raise ShareDone
    return [found[way] for way in ways]


def _bracketed(model, how: Estimation, count: int, common: dict[str, Any]) -> tuple[dict, dict]:
    """Returns the document and the arrays of bounds on images that the model generates."""
    result = evaluation.bracketed(model, count, how, **common)
    document = {
        **result.lower.summary(),
        "estimator": "bdmc",
        "warning": None,  # the gap shows it
        "upper_bound": float(result.upper.mean()),
        "gap": result.gap,
        "gap_error": result.gap_error,
        "gap_median": float(np.median(result.gaps)),
        "gap_largest": float(result.gaps.max()),
    }
    return document, {**result.lower.arrays(), "upper_bound": result.upper}


def encode(
    run: Run | str | os.PathLike,
    split: datasets.SplitName = "test",
    limit: int | None = None,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, np.ndarray]:
    """Returns the posterior `mean` and `log_variance` [N, D] and the `label` [N] of a split.

    There are also `class_names` if labels have names. The posterior is that of the top stochastic
    layer; lower layers add `mean_z1` and `log_variance_z1`, at the means of the latents above. The
    arguments are those of `evaluate`.
    """
    run = as_run(run)
    model = run.model()
    data = run.dataset(limit, dataset, data_dir, raw_dir, say)
    part = data.split(split)
    posteriors = evaluation.encode(model, evaluation.as_images(part.images, model))
    arrays = {}
    names = ["", *(f"_{name}" for name in model.latent_names[1:])]
    for name, posterior in zip(names, posteriors, strict=True):
        arrays[f"mean{name}"] = posterior.loc.numpy()
        arrays[f"log_variance{name}"] = posterior.log_variance.numpy()
    arrays["label"] = part.labels
    if data.class_names:
        arrays["class_names"] = np.array(data.class_names)
    return arrays


def plot(
    run: Run | str | os.PathLike,
    seed: int = 0,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
    look: plots.Look = plots.PLAIN,
) -> list[str]:
    """Draws what a run learned into its folder `figures`; returns the paths of the pictures.

    The pictures show:

    * training curves;
    * samples;
    * test images beside their reconstructions;
    * pseudo-inputs, with their contrast stretched, beside what they generate (for a prior that has
      them), and what all components generate;
    * a map of the posterior means of test images;
    * images along single latents and between test images (for models whose p(x | z) has a mean);
    * the histogram of the test log-likelihood (if it is that of the weights that the run has now).

    `look` sets how they are drawn.
    """
    run = as_run(run)
    model = run.model()
    rows = run.rows(say)
    data = run.dataset(NUM_MAPPED, dataset, data_dir, raw_dir, say)
    images, labels = data.test.array()
    originals = images[: NUM_SHOWN // 2]
    means = evaluation.encode(model, evaluation.as_images(images, model))[0].loc.numpy()
    pictures = {
        "curves": plots.curves(rows, history.best_of(rows, run.config.beta), look),
        "samples": plots.grid(
            model.sample(NUM_SHOWN, seed).numpy(),
            f"Samples ({'means of' if model.has_mean else 'drawn from'} p(x | z), z ~ p(z))",
            look,
        ),
        "reconstructions": plots.pairs(originals, model(originals).numpy(), look=look),
        "map": _map(model, means, labels, data.class_names, look),
    }

    components = pictures_of.components(model, NUM_SHOWN, seed)
    if components is not None:
        title = "Pseudo-inputs (contrast stretched), each with what it generates to the right"
        inputs = components.pseudo_inputs
        beside = components.generated[: len(inputs)]
        pictures["pseudo_inputs"] = plots.pairs(inputs, beside, title=title, look=look)
        title = "Images generated from the components (at their means)"
        pictures["components"] = plots.grid(components.generated, title, look)
    if model.has_mean:
        steps, along = _along_latents(means)
        title = "One test image, with one latent changed along each row (-2.5 to 2.5 standard deviations)"
        wide = dataclasses.replace(look, columns=steps)
        pictures["traversal"] = plots.grid(pictures_of.generated(model, along, seed), title, wide)
        steps, between = _between(means)
        title = "Between the posterior means of two test images, at the ends of each row"
        wide = dataclasses.replace(look, columns=steps)
        pictures["interpolation"] = plots.grid(pictures_of.generated(model, between, seed), title, wide)
    result = run.evaluation()
    if result is not None and result["current"]:
        arrays = run.evaluated_arrays() or {}
        values = arrays.get("log_likelihood")
        numbers = values is not None and values.dtype.kind == "f" and values.ndim == 1 and values.size > 0
        if values is None or not numbers or not (np.abs(values) < history.LARGEST_VALUE).all():
            raise RunError(
                f"the evaluation of {run} is damaged: evaluate it again with tfvamp evaluate {run}"
            )
        pictures["log_likelihood"] = plots.histogram(values, look)
    names = {f"{name}.{look.format}": contents for name, contents in pictures.items()}
    for name, contents in names.items():
        replace_file(run.folder.file("figures", name), contents)
    return [str(run.folder.figures / name) for name in names]


def _map(model, means: np.ndarray, labels: np.ndarray, class_names, look: plots.Look) -> bytes:
    """Draws posterior means [N, D] on their principal axes, over the prior's density in that plane."""
    axes, centre = evaluation.plane(means)
    prior, centres = model.prior, model.prior.centres()
    if isinstance(prior(), DiagonalGaussian):
        covariance = (axes * prior().variance().numpy()[:, np.newaxis]).T @ axes + 1e-6 * np.eye(2)
        in_plane = np.zeros(1), (prior().loc.numpy() - centre)[np.newaxis] @ axes, covariance[np.newaxis]
    elif isinstance(prior, MixturePriorLayer):
        mixture, components = prior().mixture_distribution, prior.components()
        log_weights = tf.nn.log_softmax(mixture.logits_parameter()).numpy()
        covariances = np.einsum("di,kd,dj->kij", axes, components.variance().numpy(), axes) + 1e-6 * np.eye(2)
        in_plane = log_weights, (components.mean().numpy() - centre) @ axes, covariances
    else:  # a kernel density estimate from draws: Scott (1992)
        drawn = (prior.sample(NUM_DRAWN, seed=0).numpy() - centre) @ axes
        kernel = np.cov(drawn.T) * NUM_DRAWN ** (-1.0 / 3.0) + 1e-6 * np.eye(2)
        in_plane = np.full(NUM_DRAWN, -np.log(NUM_DRAWN)), drawn, np.broadcast_to(kernel, (NUM_DRAWN, 2, 2))
    shown = None if centres is None else (centres.numpy() - centre) @ axes
    return plots.latent_map((means - centre) @ axes, labels, class_names, in_plane, shown, look)


def _along_latents(means: np.ndarray, rows: int = 8, steps: int = 9) -> tuple[int, np.ndarray]:
    """Returns latents [rows * steps, D]: the first of the means [N, D] with one latent changed along each row."""
    spread = means.std(axis=0)
    latents = []
    for latent in np.argsort(spread)[::-1][:rows]:
        row = np.repeat(means[:1], steps, axis=0)
        row[:, latent] = means[:, latent].mean() + np.linspace(-2.5, 2.5, steps) * spread[latent]
        latents.append(row)
    return steps, np.concatenate(latents)


def _between(means: np.ndarray, rows: int = 6, steps: int = 10) -> tuple[int, np.ndarray]:
    """Returns latents [rows * steps, D] from one of the means [N, D] to the next along each row."""
    weights = np.linspace(0.0, 1.0, steps, dtype=means.dtype)[:, np.newaxis]
    pairs = [(2 * row % len(means), (2 * row + 1) % len(means)) for row in range(rows)]
    return steps, np.concatenate([(1 - weights) * means[i] + weights * means[j] for i, j in pairs])
