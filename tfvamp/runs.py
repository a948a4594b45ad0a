"""Trained runs: the model back, evaluated, encoded, and drawn."""

from __future__ import annotations

import io
import math
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np

from tfvamp import datasets, evaluation, plots, seeds
from tfvamp.blocks import images_at_once
from tfvamp.datasets import Dataset
from tfvamp.errors import RunError
from tfvamp.layers.priors import VampPriorLayer
from tfvamp.models import LatentVariableModel
from tfvamp.training.checkpoints import load_weights
from tfvamp.training.loop import dataset_of, model_for
from tfvamp.training.run_folder import RunFolder, replace_file, write_json

NUM_SHOWN = 64  # images in a picture


def load(run_dir: str | os.PathLike) -> LatentVariableModel:
    """The trained model of a run, with the best epoch's weights.

    Its attributes `train_config` and `dataset_spec` tell how it was trained and on what.

    Raises:
      RunError: there is no such run, it has no weights yet, or they are damaged.
    """
    folder = RunFolder.open(run_dir)
    config = folder.read_config()
    # Fixed pseudo-inputs come with the weights; the zeros are overwritten.
    model = model_for(config, folder.read_shape(), keras.initializers.Zeros())
    load_weights(model, folder.best_weights)
    model.train_config = config
    model.dataset_spec = folder.read_spec()
    return model


def load_dataset(
    run_dir: str | os.PathLike,
    limit: int | None = None,
    data_dir: str | None = None,
    raw_dir: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """The data set of a run, from the folders it was trained with unless others are given.

    Raises:
      RunError, UsageError: its images have another shape or other values than those trained on.
    """
    return dataset_of(RunFolder.open(run_dir), data_dir, raw_dir, limit, say)


def evaluate(
    run_dir: str | os.PathLike,
    num_samples: int = 5000,
    split: datasets.SplitName = "test",
    limit: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
    raw_dir: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """Evaluates a run; writes evaluation.json and log_likelihood.npz (-SPLIT for other splits).

    Args:
      run_dir: the run folder.
      num_samples: S, importance samples an image.
      split: "train", "validation" or "test".
      limit: at most this many images.
      seed: of the samples.
      data_dir, raw_dir: where the data are, if not where they were in training.
      say, advance: told of a fallback from XLA; of the number of images done, and of how many.

    Returns:
      the contents of evaluation.json.
    """
    folder = RunFolder.open(run_dir)
    model = load(run_dir)
    dataset = load_dataset(run_dir, limit, data_dir, raw_dir, say)
    part = dataset.split(split)
    result = evaluation.evaluate(
        model, part.images, num_samples, seed, jit=bool(model.train_config.jit), say=say, advance=advance
    )
    document = {
        **result.summary(),
        "split": split,
        "dataset": dataset.spec.name,
        "dataset_verified": dataset.verified,
        "sources": dataset.checksums,
    }
    if not math.isfinite(document["log_likelihood"]):
        raise RunError(f"the log-likelihood of {run_dir} is not finite: nothing was written")
    before = folder.read_evaluation(split)
    size = document["num_examples"] * document["num_samples"]
    if before is not None and before["num_examples"] * before["num_samples"] > size:
        say(f"keeping the larger evaluation that was there as {folder.set_evaluation_aside(split)}")
    save_npz(
        folder.log_likelihood_file(split),
        log_likelihood=result.log_likelihood,
        elbo=result.elbo,
        reconstruction=result.reconstruction,
        kl=result.kl,
        **({f"kl_{name}": kl for name, kl in result.kls.items()} if len(result.kls) > 1 else {}),
        effective_sample_size=result.effective_sample_size,
        label=part.labels,
    )
    write_json(folder.evaluation_file(split), document)
    return document


def encode(
    run_dir: str | os.PathLike,
    split: datasets.SplitName = "test",
    limit: int | None = None,
    data_dir: str | None = None,
    raw_dir: str | None = None,
) -> dict[str, np.ndarray]:
    """Posterior `mean` and `log_variance` [N, D] and `label` [N] of a split.

    Of the top stochastic layer; those below add `mean_z1` and `log_variance_z1`, at the means above.
    """
    model = load(run_dir)
    part = load_dataset(run_dir, limit, data_dir, raw_dir).split(split)
    posteriors = evaluation.encode(model, part.images.batch(images_at_once(model, part.spec.shape)))
    arrays = {}
    for name, posterior in zip(
        ["", *(f"_{name}" for name in model.latent_names[1:])], posteriors, strict=True
    ):
        arrays[f"mean{name}"] = posterior.loc.numpy()
        arrays[f"log_variance{name}"] = posterior.log_variance.numpy()
    return {**arrays, "label": part.labels}


def plot(
    run_dir: str | os.PathLike, seed: int = 0, data_dir: str | None = None, raw_dir: str | None = None
) -> list[str]:
    """Draws what a run learned into its folder `figures`; the paths of the pictures.

    Training curves, samples, test images beside their reconstructions, pseudo-inputs (for a
    VampPrior), and the histogram of the test log-likelihood (once evaluated).
    """
    folder = RunFolder.open(run_dir)
    model = load(run_dir)
    pictures = {"curves.png": plots.curves(folder.read_history())}
    pictures["samples.png"] = plots.grid(
        model.sample(NUM_SHOWN, seed).numpy(),
        f"Samples ({'means of' if model.has_mean else 'drawn from'} p(x | z), z ~ p(z))",
    )
    originals = load_dataset(run_dir, NUM_SHOWN // 2, data_dir, raw_dir).test.array()[0]
    pictures["reconstructions.png"] = plots.pairs(originals, model(originals).numpy())
    if isinstance(model.prior, VampPriorLayer):
        pictures["pseudo_inputs.png"] = plots.grid(
            model.prior.clipped_pseudo_inputs()[:NUM_SHOWN].numpy(), "Pseudo-inputs, the first of them"
        )
        latents = model.prior.components().mean()[:NUM_SHOWN]
        pictures["components.png"] = plots.grid(
            model.pictures(
                model.generate(latents), model.pixel_noise(len(latents), seeds.stateless(seed))
            ).numpy(),
            "What the pseudo-inputs generate (at their posteriors' means)",
        )
    if folder.log_likelihood_file().is_file():
        with np.load(folder.log_likelihood_file(), allow_pickle=False) as stored:
            pictures["log_likelihood.png"] = plots.histogram(stored["log_likelihood"])
    for name, contents in pictures.items():
        replace_file(folder.figures / name, contents)
    return [str(folder.figures / name) for name in pictures]


def save_npz(path, **arrays: np.ndarray) -> None:
    """Writes arrays into a compressed .npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    replace_file(pathlib.Path(path), buffer.getvalue())
