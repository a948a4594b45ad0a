"""The model card of a report, and the works to cite."""

from __future__ import annotations

import html
import importlib.resources

from tfvamp.catalog import CATALOG, VERIFIED
from tfvamp.reports.contents import Contents
from tfvamp.reports.evaluated import encoders, other, stated
from tfvamp.reports.html import Html, facts, items, section, tag
from tfvamp.reports.parts import described

PAPER = """@inproceedings{tomczak2018vampprior,
  title = {{VAE} with a {VampPrior}},
  author = {Tomczak, Jakub M. and Welling, Max},
  booktitle = {Proceedings of the Twenty-First International Conference on Artificial Intelligence and Statistics},
  series = {Proceedings of Machine Learning Research},
  volume = {84},
  pages = {1214--1223},
  publisher = {PMLR},
  year = {2018}
}
"""
INTENDED = (
    "Research on deep generative models: densities, samples and representations of images like those of the training data, "
    "and comparisons of priors under the same settings."
)
NOT_INTENDED = (
    "Decisions about people; images unlike the training data, for which a high log p(x) does not mean that they are "
    "familiar or correct."
)


def card(contents: Contents) -> Html:
    """Returns the model card: what was trained, on which data, by which command, for what use, and the limits."""
    document = contents.document
    config, spec = document.settings, document.spec
    data = document.raw.get("data", {})
    sizes = data.get("sizes") if isinstance(data.get("sizes"), dict) else {}
    counts = " / ".join(str(sizes[name])[:12] for name in ("train", "validation", "test") if name in sizes)
    seconds = sum(row["seconds"] for row in contents.rows)
    versions = [
        f"{name} {document.versions[name]}"
        for name in ("tfvamp", "tensorflow", "keras", "python")
        if name in document.versions
    ]
    rows = {
        "model": described(contents),
        "latents": f"{config.latent_dims} per stochastic layer",
        "likelihood": config.likelihood,
        "number of weights": None if contents.parameters is None else f"{contents.parameters:,}",
        "training data": spec.title,
        "images (training / validation / test)": counts,
        "image size": " x ".join(map(str, spec.shape)),
        "source and licence of the data": spec.source,
        "published files": VERIFIED[document.verified],
        "source files (sha256)": tag(
            "span", ", ".join(f"{name} {digest}" for name, digest in document.sources.items()), class_="long"
        )
        if document.sources
        else None,
        "training": f"{len(contents.rows)} epochs in {seconds / 60.0:.1f} minutes, seed {config.seed}, started {document.started}",
        "command": tag("code", document.command),
        "versions": ", ".join(versions),
        "weights of epoch": None if contents.best is None else str(contents.best["epoch"]),
        "checksum of the weights (sha256)": tag("span", contents.run.weights_sha256 or "", class_="long")
        if contents.rows
        else None,
        "evaluation": _evaluated(contents),
        "intended use": INTENDED,
        "not intended for": NOT_INTENDED,
    }
    return section("Model card", facts(rows), tag("h4", "Limits"), items(limits(contents)))


def limits(contents: Contents) -> list[str]:
    """Returns what a user of the model must know."""
    config, document = contents.document.settings, contents.document
    found = []
    if not document.own:
        found.append(
            "This run was written by somebody else or on another machine: this report shows what its files say."
        )
    if contents.best is None:
        found.append("No epoch is finished: there is no trained model.")
    elif len(contents.rows) >= config.epochs:
        found.append(
            f"Training ended at the maximum of {config.epochs} epochs and not by early stopping: it may not have converged."
        )
    elif len(contents.rows) - contents.best["epoch"] < config.patience:
        found.append("Training was stopped before early stopping ended it, or still goes on.")
    if config.limit is not None:
        found.append(f"At most {config.limit} images of each split were used.")
    if "test" in contents.evaluations:
        found.append(
            "Log-likelihoods are estimates that are too low on average; their stated errors do not contain that. "
            "The standard error is that of another test set, the Monte Carlo error that of another seed of the evaluation."
        )
        if other(contents) is None:
            found.append(
                "The encoder's q alone was used, whose estimate can be several nats too low where the encoder overfits."
            )
    else:
        found.append("The log-likelihood of the test images was not estimated.")
    found.append("This is one run with one seed; other seeds give other numbers.")
    if contents.diagnosis is None:
        found.append("Whether samples copy training images was not measured (tfvamp diagnose).")
    return found


def citations(datasets: list[str]) -> Html:
    """Returns the BibTeX entries of the paper and of data sets."""
    entries = [PAPER]
    for name in dict.fromkeys(datasets):
        if name in CATALOG:
            place = importlib.resources.files("tfvamp.datasets") / CATALOG[name].tfds_name / "CITATIONS.bib"
            if place.is_file():
                entries.append(place.read_text(encoding="utf-8"))
    text = "\n".join(dict.fromkeys(entries))
    return section("Citation", tag("pre", Html(html.escape(text))), level=2)


def _evaluated(contents: Contents) -> str | None:
    texts = [
        f"{stated(one.number('log_likelihood'), one.number('standard_error'))} nats ({one.name})"
        for one in filter(None, (encoders(contents), other(contents)))
    ]
    return ", ".join(texts) or None
