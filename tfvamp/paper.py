"""The numbers that the paper prints, and the runs behind each of its tables and figures.

Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018 (arXiv 1705.07120). This file needs only
the standard library and the other files on the ground floor, so that the command line can use it
before TensorFlow is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .catalog import CATALOG
from .config import PRIORS
from .errors import UsageError, check_choice

SAMPLES = 5000  # importance samples per test image, of each printed log-likelihood
DATASETS = ("static_mnist", "dynamic_mnist", "omniglot", "caltech101", "frey_faces", "histopathology")
MODELS = ("vae", "hvae", "convhvae", "pixelhvae")
TITLES = {
    "static_mnist": "static MNIST",
    "dynamic_mnist": "dynamic MNIST",
    "omniglot": "OMNIGLOT",
    "caltech101": "Caltech 101",
    "frey_faces": "Frey Faces",
    "histopathology": "Histopathology",
    "vae": "VAE",
    "hvae": "HVAE",
    "convhvae": "convHVAE",
    "pixelhvae": "PixelHVAE",
    "standard": "standard",
    "mog": "MoG",
    "vamp": "VampPrior",
    "vamp-data": "VampPrior data",
    "vamp-weighted": "VampPrior weighted",
    "vamp-mixture": "VampPrior mixture",
    "exemplar": "exemplars",
    "flow": "flow",
}
IN_BITS = ("frey_faces", "histopathology")  # printed in bits per dimension, of which fewer are better
PRINTED_PRIORS = ("standard", "vamp")  # of Table 1

# Table 1: the standard prior and the VampPrior, for each of `MODELS`.
TABLE1 = {
    "static_mnist": (-88.56, -85.57, -86.05, -83.19, -82.41, -81.09, -80.58, -79.78),
    "dynamic_mnist": (-84.50, -82.38, -82.42, -81.24, -80.40, -79.75, -79.70, -78.45),
    "omniglot": (-108.50, -104.75, -103.52, -101.18, -97.65, -97.56, -90.11, -89.76),
    "caltech101": (-123.43, -114.55, -112.08, -108.28, -106.35, -104.22, -85.51, -86.22),
    "frey_faces": (4.63, 4.57, 4.61, 4.51, 4.49, 4.45, 4.43, 4.38),
    "histopathology": (6.07, 6.04, 5.82, 5.75, 5.59, 5.58, 4.84, 4.82),
}
# Figure 2, read off to within 0.05 nats: the ELBO of HVAEs on static MNIST by the number of components.
COMPONENTS = (1, 10, 100, 300, 500, 1000)
FIGURE2 = {
    "vamp": (-92.63, -91.79, -91.25, -90.98, -90.63, -90.94),
    "mog": (-92.67, -92.49, -92.38, -92.39, -92.37, -92.79),
    "standard": (-94.40,),
}
# Figure 3: active units of z1 and z2 by number of components, and of another network with the standard prior.
FIGURE3 = {"z1": (37, 37, 37, 37, 36, 36), "z2": (19, 21, 24, 25, 29, 26)}
FIGURE3_OTHERS = {"VAE": (17, 6), "IWAE": (24, 7)}
OBJECTIVES = ("elbo", "iwae")
# The default choice: these figures' other data sets and models are not the paper's, or cost as much again.
USUAL: dict[str, dict[str, Sequence[str]]] = {
    "figure2": {"datasets": ("static_mnist",)},
    "figure3": {"datasets": ("static_mnist",)},
    "figure4": {"models": ("pixelhvae",)},
    "gradients": {"datasets": ("static_mnist",), "models": ("vae",)},
}
# Of Figures 5 and 6.
PICTURED = (("vae", "standard"), ("hvae", "vamp"), ("convhvae", "vamp"), ("pixelhvae", "vamp"))


class Point(NamedTuple):
    """The content of a cell of a table or a figure.

    Attributes:
      dataset: short name of the data set.
      title: the paper's name for the method.
      published: the number that the paper prints; None if it prints none.
      model, prior: names in tfvamp; None for a method of another paper, which is not run.
      components: K; None for the default of the data set.
      objective: "elbo" or "iwae".
    """

    dataset: str
    title: str
    published: float | None
    model: str | None = None
    prior: str | None = None
    components: int | None = None
    objective: str = "elbo"


def _printed(
    dataset: str, title: str, published: float, model: str | None = None, prior: str | None = None
) -> Point:
    return Point(dataset, title, published, model, prior)


TABLES = {
    "table2": (
        _printed("static_mnist", "VAE (L = 1) + NF", -85.10),
        _printed("static_mnist", "VAE (L = 2)", -87.86),
        _printed("static_mnist", "IWAE (L = 2)", -85.32),
        _printed("static_mnist", "HVAE (L = 2) + SG", -85.89, "hvae", "standard"),
        _printed("static_mnist", "HVAE (L = 2) + MoG", -85.07, "hvae", "mog"),
        _printed("static_mnist", "HVAE (L = 2) + VampPrior data", -85.71, "hvae", "vamp-data"),
        _printed("static_mnist", "HVAE (L = 2) + VampPrior", -83.19, "hvae", "vamp"),
        _printed("static_mnist", "AVB + AC", -80.20),
        _printed("static_mnist", "VLAE", -79.03),
        _printed("static_mnist", "VAE + IAF", -79.88),
        _printed("static_mnist", "convHVAE (L = 2) + VampPrior", -81.09, "convhvae", "vamp"),
        _printed("static_mnist", "PixelHVAE (L = 2) + VampPrior", -79.78, "pixelhvae", "vamp"),
    ),
    "table3": (
        _printed("dynamic_mnist", "VAE (L = 2) + VGP", -81.32),
        _printed("dynamic_mnist", "CaGeM-0", -81.60),
        _printed("dynamic_mnist", "LVAE (L = 5)", -81.74),
        _printed("dynamic_mnist", "HVAE (L = 2) + VampPrior data", -81.71, "hvae", "vamp-data"),
        _printed("dynamic_mnist", "HVAE (L = 2) + VampPrior", -81.24, "hvae", "vamp"),
        _printed("dynamic_mnist", "VLAE", -78.53),
        _printed("dynamic_mnist", "VAE + IAF", -79.10),
        _printed("dynamic_mnist", "PixelVAE", -78.96),
        _printed("dynamic_mnist", "convHVAE (L = 2) + VampPrior", -79.78, "convhvae", "vamp"),
        _printed("dynamic_mnist", "PixelHVAE (L = 2) + VampPrior", -78.45, "pixelhvae", "vamp"),
    ),
    "table4": (
        _printed("omniglot", "VR-max", -103.72),
        _printed("omniglot", "IWAE", -103.38),
        _printed("omniglot", "LVAE", -102.11),
        _printed("omniglot", "HVAE (L = 2) + VampPrior", -101.18, "hvae", "vamp"),
        _printed("omniglot", "VLAE", -89.83),
        _printed("omniglot", "convHVAE (L = 2) + VampPrior", -97.56, "convhvae", "vamp"),
        _printed("omniglot", "PixelHVAE (L = 2) + VampPrior", -89.76, "pixelhvae", "vamp"),
    ),
    "table5": (
        _printed("caltech101", "IWAE", -117.21),
        _printed("caltech101", "VR-max", -117.10),
        _printed("caltech101", "HVAE (L = 2) + VampPrior", -108.28, "hvae", "vamp"),
        _printed("caltech101", "VLAE", -78.53),
        _printed("caltech101", "convHVAE (L = 2) + VampPrior", -104.22, "convhvae", "vamp"),
        _printed("caltech101", "PixelHVAE (L = 2) + VampPrior", -86.22, "pixelhvae", "vamp"),
    ),
}
TABLE_NAMES = ("table1", *TABLES)
FIGURES = {
    "figure1": "the stochastic dependencies of VAE and HVAE",
    "figure2": "the ELBO against the number of components",
    "figure3": "active units against the number of components",
    "figure4": "samples from one pseudo-input, and pseudo-inputs",
    "figure5": "real images beside generated ones",
    "figure6": "real images beside their reconstructions",
    "figure7": "histograms of the test log-likelihood",
    "gradients": "the pull of the prior against the similarity of x and u_k (which the appendix only argues)",
}
NAMES = (*TABLE_NAMES, *FIGURES)
NOT_EVALUATED = ("figure4", "figure5", "figure6", "gradients")  # their runs need no log-likelihood
BY_COMPONENTS = ("figure2", "figure3")  # they need the ELBO and the active units alone
ELBO_SAMPLES = 100  # per image, for these two
# Public evidence on cells whose printed number others did not get: docs/reproducing.md has the sources.
EVIDENCE = {
    (
        "static_mnist",
        "hvae",
        "vamp",
    ): "public runs of the authors' code: -84.88 (standard deviation 0.06 over seeds)",
    ("caltech101", "hvae", "standard"): "independent public code: -117.53",
    ("caltech101", "hvae", "vamp"): "independent public code: -116.92",
}
# Places where the paper disagrees with itself, or with what it cites: table, data set, model, text.
NOTES = (
    ("table1", "static_mnist", "hvae", "HVAE + standard on static MNIST: -86.05 here, -85.89 in Table 2."),
    (
        "table1",
        "dynamic_mnist",
        "convhvae",
        "convHVAE + VampPrior on dynamic MNIST: -79.75 here, -79.78 in Table 3.",
    ),
    ("table2", "static_mnist", "hvae", "HVAE + SG: -85.89 here, -86.05 in Table 1."),
    ("table3", "dynamic_mnist", "convhvae", "convHVAE + VampPrior: -79.78 here, -79.75 in Table 1."),
    ("table5", "caltech101", None, "VLAE: -78.53 here, -77.36 in its own paper."),
)


def notes(name: str, shown: Iterable[Point]) -> list[str]:
    """Returns what there is to say about the printed numbers of some cells of a table."""
    pairs = {(point.dataset, point.model) for point in shown}
    return [
        f"The paper prints two numbers for one cell: {text}"
        for table, dataset, model, text in NOTES
        if table == name and (dataset, model) in pairs
    ]


def points(
    name: str,
    datasets: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    priors: Sequence[str] | None = None,
    components: Sequence[int] | None = None,
) -> list[Point]:
    """Returns the cells of a table, or of the runs behind a figure.

    Args:
      name: one of `NAMES`.
      datasets, models, priors: keep only these, by their short names; None keeps all, or those in
        `USUAL`. For table1 and figure7, priors may be other ones than the paper's; their cells have
        no published number.
      components: numbers of components of figure2 and figure3; None for the paper's.

    Raises:
      UsageError: a name does not exist, or nothing is left.
    """
    check_choice("table or figure", name, NAMES)
    if components is not None and name not in BY_COMPONENTS:
        raise UsageError(f"--components goes with {' and '.join(BY_COMPONENTS)}, not with {name}")
    for kind, chosen, known in (
        ("data set", datasets, DATASETS),
        ("model", models, MODELS),
        ("prior", priors, tuple(PRIORS)),
    ):
        for one in chosen or ():
            check_choice(kind, one, known)
    if name == "figure1":
        return []
    usual = USUAL.get(name, {})
    datasets = usual.get("datasets") if datasets is None else datasets
    models = usual.get("models") if models is None else models
    found = [
        point
        for point in _all(name, priors, COMPONENTS if components is None else components)
        if (datasets is None or point.dataset in datasets)
        and (models is None or point.model in models)
        and (priors is None or point.prior in priors)
    ]
    if not any(point.model for point in found):
        raise UsageError(
            f"{name} has no run of these data sets, models and priors: leave out one of the options"
        )
    return found


def evaluation(name: str, samples: int | None = None) -> dict[str, Any] | None:
    """Returns how the runs behind a table or figure are evaluated; None if they are not.

    Args:
      name: one of `NAMES`.
      samples: number of importance samples per image; None for the usual number.
    """
    if name in NOT_EVALUATED:
        return None
    if name in BY_COMPONENTS:
        return {"samples": samples or ELBO_SAMPLES, "proposal": "encoder"}
    return {"samples": samples or SAMPLES}


def _all(name: str, priors: Sequence[str] | None, components: Sequence[int]) -> Iterable[Point]:
    if name in TABLES:
        return TABLES[name]
    if name in ("table1", "figure7"):
        return (
            _of_table1(dataset, model, prior)
            for dataset in DATASETS
            for model in MODELS
            for prior in priors or PRINTED_PRIORS
        )
    if name == "figure2":
        return _by_components(("standard", "mog", "vamp"), ("elbo",), components)
    if name == "figure3":
        return _by_components(PRINTED_PRIORS, OBJECTIVES, components)
    if name == "figure4":
        pairs = [(model, "vamp") for model in MODELS]
    elif name == "gradients":
        pairs = [(model, prior) for model in MODELS for prior in ("vamp", "standard", "mog")]
    else:
        pairs = list(PICTURED)
    return (_of_table1(dataset, model, prior) for dataset in DATASETS for model, prior in pairs)


def _of_table1(dataset: str, model: str, prior: str) -> Point:
    published = None
    if prior in PRINTED_PRIORS:
        published = TABLE1[dataset][2 * MODELS.index(model) + PRINTED_PRIORS.index(prior)]
    return Point(dataset, f"{TITLES[model]} + {TITLES[prior]}", published, model, prior)


def _by_components(
    priors: Sequence[str], objectives: Sequence[str], components: Sequence[int]
) -> Iterable[Point]:
    """Returns HVAEs on each data set for each prior and each number of components."""
    for dataset in DATASETS:
        for objective in objectives:
            for prior in priors:
                printed = (dataset, objective) == ("static_mnist", "elbo")
                published = dict(zip(COMPONENTS, FIGURE2[prior], strict=False)) if printed else {}
                title = f"HVAE + {TITLES[prior]}"
                if not PRIORS[prior].mixture:
                    level = FIGURE2[prior][0] if printed else None
                    yield Point(dataset, title, level, "hvae", prior, None, objective)
                    continue
                for count in components:
                    yield Point(dataset, title, published.get(count), "hvae", prior, count, objective)


def in_bits(dataset: str) -> bool:
    """Returns whether the paper prints bits per dimension for a data set, and not nats."""
    return dataset in IN_BITS


def nats_per_unit(dataset: str) -> float:
    """Returns the divisor from nats to the unit that the paper prints: 1, or -D ln 2 for bits per dimension."""
    return -math.prod(CATALOG[dataset].shape) * math.log(2.0) if in_bits(dataset) else 1.0
