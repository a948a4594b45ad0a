"""Writes goldens.json, the twins' log-densities in float64, from the root of the repository:

    python -m tests.make_goldens

They change when a twin's formula, the weights' formula or the order of a model's weights does; never because a
model changed alone: then the models no longer equal their twins.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np

from tests import twins
from tests.small import small_model
from tfvamp.models import MODELS

PATH = pathlib.Path(__file__).parent / "goldens.json"
TWINS = {
    "vae": twins.VAETwin,
    "hvae": twins.HVAETwin,
    "convvae": twins.ConvVAETwin,
    "convhvae": twins.ConvHVAETwin,
    "pixelhvae": twins.PixelHVAETwin,
}
LIKELIHOODS = ("bernoulli", "logistic")


def formula_filled(model) -> None:
    """Weights by a formula of their place, the same everywhere, forever."""
    for number, weight in enumerate(model.weights):
        if weight is model.beta or weight.path.endswith(("total", "count")):
            continue
        index = np.arange(int(np.prod(weight.shape)), dtype=np.float64).reshape(weight.shape)
        spread = 0.4 if index.ndim < 4 or weight.name == "pseudo_inputs" else 3.0 * index[..., 0].size ** -0.5
        values = spread * np.sin(1.0 + 0.7 * number + 1.3 * index)
        weight.assign(0.5 + values if weight.name in ("pseudo_inputs", "moving_variance") else values)


def case(name: str, likelihood: str):
    """A model, three images and their latents, the top ones first."""
    model = small_model(MODELS[name], likelihood=likelihood)
    formula_filled(model)
    index = np.arange(9).reshape(3, 3)
    latents = [values.astype(np.float32) for values in (0.5 * np.cos(index), np.sin(2.0 * index))]
    x = np.random.default_rng(0).integers(0, 2, (3, 6, 5, 1)).astype(np.float32)
    if likelihood == "logistic":
        x = (np.floor(128 + 127.9 * np.sin(np.arange(90.0))).reshape(x.shape).astype(np.float32) + 0.5) / 256
    return model, x, latents[: len(model.latent_names)]


def log_densities(name: str, likelihood: str) -> dict[str, list[float]]:
    """Each term of the twin for each image, to 13 digits."""
    model, x, latents = case(name, likelihood)
    terms = TWINS[name](model).terms(x, *latents)
    return {term: [float(f"{value:.13g}") for value in values] for term, values in terms.items()}


def main() -> None:
    goldens = {
        f"{name} {likelihood}": log_densities(name, likelihood)
        for name in TWINS
        for likelihood in LIKELIHOODS
    }
    PATH.write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
