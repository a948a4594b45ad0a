"""A diagnosis of what a run's prior, latents and decoder have learned: numbers, pictures and plain words."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvamp import evaluation, plots
from tfvamp.config import Estimation
from tfvamp.errors import UsageError
from tfvamp.evaluation import diagnostics
from tfvamp.files import replace_file, write_json
from tfvamp.models import LatentVariableModel
from tfvamp.runs.diagnosis import COPIED, findings
from tfvamp.runs.run import Run, as_run

IMAGES = 200  # of each of the training and test splits, whose log-likelihood is estimated
SAMPLES = 500  # importance samples per image
SHOWN = 8  # images in a row


def diagnose(
    run: Run | str | os.PathLike,
    num_samples: int = SAMPLES,
    limit: int = IMAGES,
    seed: int = 0,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> dict[str, Any]:
    """Diagnoses a run; writes diagnosis.json, and pictures into its folder `figures`.

    Args:
      run: the run, or its folder.
      num_samples: S, the number of importance samples per image.
      limit: number of training images and of test images, chosen at random, whose log-likelihood is
        estimated. The model generates five times as many samples, at most as many as there are test
        images. All other numbers use all images.
      seed: seed of every draw.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`.
      say: a function that gets one line of text, such as that XLA is given up.
      advance: a function that gets the number of images done, and the number of all images.
      settings: `refine_steps` and so on, as for `tfvamp.log_likelihood`.

    Returns:
      the contents of diagnosis.json; docs/evaluation.md describes them.

    Raises:
      RunError: the run cannot be loaded.
      UsageError: an argument is out of bounds, a split has fewer than two images, or more memory is
        needed than there is.
    """
    if limit < 2:
        raise UsageError(f"the number of images must be at least 2; got {limit}")
    refined = Estimation(samples=num_samples, proposal="refined", **settings)
    refined.check_effect(settings)
    ways = {"encoder": dataclasses.replace(refined, proposal="encoder"), "refined": refined}
    run = as_run(run)
    model = run.model()
    data = run.dataset(None, dataset, data_dir, raw_dir, say)
    splits = {name: data.split(name) for name in ("train", "test")}
    if min(split.num_examples for split in splits.values()) < 2:
        raise UsageError(f"{run} has fewer than two training or test images: there is nothing to compare")
    arrays = {name: split.array()[0] for name, split in splits.items()}
    images = {name: tf.constant(x) for name, x in arrays.items()}
    posteriors = {name: evaluation.encode(model, x) for name, x in images.items()}
    common: dict[str, Any] = {"seed": seed, "say": say, "advance": advance}
    rng = np.random.default_rng(seed)
    chosen = {
        name: x[np.sort(rng.choice(len(x), min(limit, len(x)), replace=False))] for name, x in arrays.items()
    }
    evaluation.say_time(model, images["test"][:1], sum(map(len, chosen.values())), refined, say)
    estimates = {
        (name, proposal): evaluation.estimated(model, x, how, **common)
        for name, x in chosen.items()
        for proposal, how in ways.items()
    }
    document: dict[str, Any] = {
        "epoch": run.weights_epoch,
        "weights_sha256": run.weights_sha256,
        "num_images": {name: len(x) for name, x in chosen.items()},
        "num_samples": num_samples,
        "seed": seed,
        "fit": _fit(estimates),
        "layers": _layers(model, posteriors["test"], estimates["test", "encoder"]),
        "surgery": {
            name: diagnostics.surgery(of_split[0], model.prior(), seed=seed)._asdict()
            for name, of_split in posteriors.items()
        },
        "components": _components(model, posteriors["test"][0], seed),
    }
    samples = model.sample(min(len(arrays["test"]), 5 * limit), seed, draw=True).numpy()
    document["samples"], pairs = _samples(samples, arrays)
    pseudo_inputs = model.prior.clipped_pseudo_inputs()
    if pseudo_inputs is not None:
        ours = pseudo_inputs.numpy()
        if document["components"] is not None:  # the most used ones first
            ours = ours[np.argsort(document["components"]["shares"])[::-1]]
        index, distance = diagnostics.nearest(ours, arrays["train"])
        document["pseudo_inputs"] = {"median_distance": float(np.median(distance))}
        pairs["pseudo_inputs"] = (ours, arrays["train"][index])
    labels = {name: split.labels for name, split in splits.items()}
    document["probes"] = _probes(labels, posteriors, say)
    document["clusters"] = None if document["probes"] is None else _clusters(model, labels, posteriors)
    document["findings"] = findings(document)
    for name, contents in _pictures(
        model, document, posteriors["test"][0], estimates, chosen["test"], pairs
    ).items():
        replace_file(run.folder.file("figures", name), contents)
    write_json(run.folder.file("diagnosis.json"), document)
    return document


def _fit(estimates) -> dict[str, Any]:
    """Returns the log-likelihood on training and test images, and what causes the difference."""
    fit: dict[str, Any] = {
        name: {
            "elbo": float(estimates[name, "encoder"].elbo.mean()),
            "refined_elbo": float(estimates[name, "refined"].elbo.mean()),
            "log_likelihood": estimates[name, "encoder"].mean,
            "refined_log_likelihood": estimates[name, "refined"].mean,
            "standard_error": estimates[name, "refined"].standard_error,
            "monte_carlo_error": estimates[name, "refined"].monte_carlo_error,
        }
        for name in ("train", "test")
    }
    for of_split in fit.values():
        of_split["amortisation_gap"] = of_split["refined_elbo"] - of_split["elbo"]
    train, test = fit["train"], fit["test"]
    variances = [
        estimates[name, "encoder"].elbo.var(ddof=1) / len(estimates[name, "encoder"].elbo) for name in fit
    ]
    return fit | {
        "gap": train["elbo"] - test["elbo"],
        "gap_error": math.sqrt(sum(variances)),
        "gap_of_encoder": test["amortisation_gap"] - train["amortisation_gap"],
        "gap_of_decoder": train["refined_elbo"] - test["refined_elbo"],
    }


def _layers(model: LatentVariableModel, posteriors, estimate) -> dict[str, Any]:
    """Returns KL and activity of each stochastic layer, from the top down."""
    return {
        name: {
            "kl": float(estimate.kls[name].mean()),
            "active_units": diagnostics.active_units(posterior.loc.numpy()),
            "latent_dims": int(posterior.loc.shape[1]),
            "variances": diagnostics.variances(posterior.loc.numpy()).tolist(),
        }
        for name, posterior in zip(model.latent_names, posteriors, strict=True)
    }


def _components(model: LatentVariableModel, posterior, seed: int) -> dict[str, Any] | None:
    """Returns the use of a mixture prior's components; None for another prior."""
    if not model.prior.is_mixture():
        return None
    used = diagnostics.usage(posterior, model.prior(), seed=seed)
    return used._asdict() | {"shares": used.shares.tolist(), "number": len(used.shares)}


def _samples(samples: np.ndarray, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compares samples with test images, and each sample with the nearest training image."""
    test = arrays["test"][: len(samples)]
    index, distance = diagnostics.nearest(samples, arrays["train"])
    _, of_test = diagnostics.nearest(test, arrays["train"])
    near = float(np.quantile(of_test, COPIED))
    document = {
        "number": len(samples),
        "two_samples": diagnostics.two_samples(test, samples)._asdict(),
        "median_distance": float(np.median(distance)),
        "median_distance_of_test": float(np.median(of_test)),
        "nearer_than_test": float((distance < near).mean()),
    }
    return document, {"samples": (samples, arrays["train"][index])}


def _probes(labels: dict[str, np.ndarray], posteriors, say) -> dict[str, float] | None:
    """Returns the accuracies of classifiers of the posterior means; None without labels or scikit-learn."""
    if min(len(np.unique(of_split)) for of_split in labels.values()) < 2:
        return None
    if importlib.util.find_spec("sklearn") is None:
        say("representation not measured: it needs scikit-learn (pip install 'tfvamp[probes]')")
        return None
    means = {name: of_split[0].loc.numpy() for name, of_split in posteriors.items()}
    return diagnostics.probes(means["train"], labels["train"], means["test"], labels["test"])


def _clusters(
    model: LatentVariableModel, labels: dict[str, np.ndarray], posteriors
) -> dict[str, float] | None:
    """Returns how the components of a mixture prior agree with labels; None for another prior."""
    if not model.prior.is_mixture():
        return None
    prior = model.prior()
    of = {name: diagnostics.components_of(prior, of_split[0].loc) for name, of_split in posteriors.items()}
    return diagnostics.clusters(of["train"], labels["train"], of["test"], labels["test"])


def _pictures(model, document, posterior, estimates, x_test, pairs) -> dict[str, bytes]:
    """Returns the figures of a diagnosis, by file name."""
    test = estimates["test", "refined"]
    means = posterior.loc.numpy()
    axes, centre = diagnostics.plane(means)
    centres = model.prior.centres()
    components = None if centres is None else (centres.numpy() - centre) @ axes
    pictures = {
        "diagnosis_latents.png": plots.spectra(
            {name: layer["variances"] for name, layer in document["layers"].items()},
            diagnostics.ACTIVITY_THRESHOLD,
        ),
        "diagnosis_curve.png": plots.estimates(
            {proposal: estimates["test", proposal].curve for proposal in ("encoder", "refined")}
        ),
        "diagnosis_histogram.png": plots.histogram(test.per_example),
        "diagnosis_map.png": plots.scatter((means - centre) @ axes, components),
    }
    order = np.argsort(test.per_example)
    for name, shown in (("worst", order[:SHOWN]), ("best", order[::-1][:SHOWN])):
        x = x_test[shown]
        pictures[f"diagnosis_{name}.png"] = plots.pairs(
            x,
            model(x).numpy(),
            title=f"Test images of the {name} log-likelihoods, each with its reconstruction",
        )
    if document["components"] is not None:
        pictures["diagnosis_components.png"] = plots.shares(np.array(document["components"]["shares"]))
    for name, (ours, theirs) in pairs.items():
        what = {"pseudo_inputs": "The most used pseudo-inputs", "samples": "Samples"}[name]
        title = f"{what}, each with its nearest training image"
        pictures[f"diagnosis_{name}.png"] = plots.pairs(ours[: 4 * SHOWN], theirs[: 4 * SHOWN], title=title)
    return pictures
