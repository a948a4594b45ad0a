"""The part of a report about an evaluation: numbers with their errors, beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tfvamp.files import counted, printable
from tfvamp.paper import SAMPLES
from tfvamp.reports import charts
from tfvamp.reports.contents import Contents, Estimate, Evaluation
from tfvamp.reports.html import Html, items, section, table, tag

NONE = "\N{EN DASH}"  # a cell without a value
TITLES = {  # in the order of the page
    "test": "Evaluation",
    "validation": "Evaluation on validation images",
    "train": "Evaluation on training images",
    "simulated": "Bounds from both sides",
}
PARTS = {"elbo": "ELBO", "reconstruction": "E[log p(x | z)]", "kl": "KL"}


def evaluation(contents: Contents, split: str) -> Html:
    """Returns the part about an evaluation."""
    result = contents.evaluations[split]
    document, estimates = result.document, result.estimates
    rows = _rows(contents, result, split)
    filled = [row for row in rows if any(cell != NONE for cell in row[1:])]
    numbers = table(["nats per image, higher is better", *(estimate.name for estimate in estimates)], filled)
    warnings = [
        f"{estimate.name}: {warning}"
        for estimate in estimates
        if isinstance(warning := estimate.document.get("warning"), str)
    ]
    density = document.get("prior_density")
    if density is not None and density != "exact":
        warnings.append(f"log p(z) is not exact in these numbers, but: {printable(str(density))[:60]}")
    paper = _beside_the_paper(contents) if split == "test" else Html()
    left = tag("div", numbers, paper, items(warnings, "warnings"))
    about = tag("p", _explained(document, estimates, split))
    return section(TITLES[split], about, tag("div", left, tag("div", *_figures(result)), class_="halves"))


def stated(value: float | None, error: float | None = None, digits: int = 2) -> str:
    """Returns a number and its error as text."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def bits(contents: Contents, nats: float | None) -> float | None:
    """Returns nats per image as bits per dimension."""
    return None if nats is None else nats / (math.prod(contents.document.spec.shape) * math.log(2.0))


def encoders(contents: Contents) -> Estimate | None:
    """Returns the estimate for the test images that is comparable with published ones: from the encoder's q."""
    result = contents.evaluations.get("test")
    return next((one for one in result.estimates if one.of_encoder), None) if result else None


def other(contents: Contents) -> Estimate | None:
    """Returns the estimate for the test images that does not come only from the encoder's q: refined, or by chains."""
    result = contents.evaluations.get("test")
    return next((one for one in result.estimates if not one.of_encoder), None) if result else None


def difference(contents: Contents) -> float | None:
    """Returns the encoder's estimate minus the paper's number, in the unit of the paper."""
    own, printed = encoders(contents), contents.printed
    if own is None or printed is None or (value := own.number(printed.unit)) is None:
        return None
    return value - printed.value


def _rows(contents: Contents, result: Evaluation, split: str) -> list[list]:
    estimates, printed = result.estimates, contents.printed

    def row(name: str, cell: Callable[[Estimate], str]) -> list:
        return [name, *(cell(estimate) for estimate in estimates)]

    def plain(name: str, *names: str, digits: int = 2) -> list:
        return row(name, lambda one: stated(one.number(*names), digits=digits))

    first = row("log-likelihood", lambda one: stated(one.number("log_likelihood")))
    rows = [[first[0], *(tag("strong", cell) for cell in first[1:])]]
    if split == "test" and printed is not None and encoders(contents) is not None:
        unit = " (bits per dimension)" if printed.unit == "bits_per_dim" else ""
        beside = {
            f"paper, Table {printed.table}": stated(printed.value),
            "this run minus the paper": stated(difference(contents)),
        }
        for name, cell in beside.items():
            rows.append([f"{name}{unit}", *(cell if one.of_encoder else NONE for one in estimates)])
    rows += [
        plain("standard error over images", "standard_error"),
        plain("Monte Carlo error", "monte_carlo_error", digits=3),
        plain("upper bound", "upper_bound"),
        row("gap of the bounds", lambda one: stated(one.number("gap"), one.number("gap_error"), 3)),
        row(
            "bits per dimension (lower is better)",
            lambda one: stated(
                one.number("bits_per_dim"), bits(contents, one.number("standard_error")), digits=3
            ),
        ),
        *(plain(name, key) for key, name in PARTS.items()),
    ]
    layers = [key for key in estimates[0].document if key.startswith("kl_z")][:8]
    rows += [plain(f"KL of {key.removeprefix('kl_')}", key) for key in layers]
    sizes = sorted({size for one in estimates if one.by_importance for size, _, _ in one.curve})
    for size in sizes[:5]:
        means = [{point[0]: point[1] for point in one.curve}.get(size) for one in estimates]
        rows.append([f"estimate with {counted(int(size), 'sample')}", *map(stated, means)])
    rows += [
        plain("effective sample size, median", "effective_sample_size", "median", digits=0),
        plain("effective sample size, 5 % quantile", "effective_sample_size", "quantile_5", digits=1),
        plain("Pareto k, median", "pareto_k", "median"),
        row("images with Pareto k above 0.7", lambda one: _percent(one.number("pareto_k", "above_0.7"))),
    ]
    return rows


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100.0 * share:.0f} %"


def _explained(document: dict, estimates: list[Estimate], split: str) -> str:
    how = ", ".join(
        f"{one.document.get('num_samples')} {'samples' if one.by_importance else 'chains'} per image ({one.name})"
        for one in estimates
    )
    images = {"simulated": "images that the model made", "train": "training images"}.get(
        split, f"{split} images"
    )
    epoch = "" if document.get("epoch") is None else f", weights of epoch {document['epoch']}"
    text = f"{document['num_examples']} {images}{epoch}, seed {document.get('seed')}; {how}."
    if len(estimates) > 1:
        text += (
            " The columns are two estimates of the same log p(x): compare models within one column only. The paper's numbers "
            "use the encoder's q. Both are too low on average, so that the higher one is closer to log p(x)."
        )
    return text


def _beside_the_paper(contents: Contents) -> Html:
    """Returns what a reader must know about a comparison with the paper; empty if the paper has no such number."""
    printed, own = contents.printed, encoders(contents)
    if printed is None:
        return tag("p", "The paper prints no number for this data set, model and prior.")
    if own is None:
        return tag("p", f"The paper's number, {printed.value} (Table {printed.table}), is from the encoder's q, of which there is no estimate here.")  # fmt: skip
    caveats = list(printed.notes)
    if own.number("num_samples") != SAMPLES:
        caveats.append(f"The paper takes {SAMPLES} samples per image from the encoder's q.")
    if own.number("num_examples") != contents.document.spec.sizes[2]:
        caveats.append(f"The paper's number is over all {contents.document.spec.sizes[2]} test images.")
    if contents.document.verified is not True:
        caveats.append("The data are not known to be the published files.")
    if contents.departures:
        caveats.append(f"Settings that are not the paper's, with the paper's in brackets: {', '.join(contents.departures)}.")  # fmt: skip
    start = f"The paper's number is in Table {printed.table} of Tomczak and Welling (2018). "
    start += "Of this comparison:" if caveats else "Data set, model, prior, settings and estimator are the paper's; one seed."  # fmt: skip
    return tag("div", tag("p", start), items(caveats))


def _figures(result: Evaluation) -> Iterable[Html]:
    if result.values:
        yield charts.histogram("Images by log-likelihood", result.values, "log p(x) of an image (nats)")
    series = []
    for colour, one in enumerate(result.estimates):
        if one.by_importance and len(one.curve) > 1:
            sizes, means, errors = zip(*one.curve, strict=True)
            series.append(charts.Line(one.name, sizes, means, colour, errors))
    if series:
        yield charts.lines("Estimate (nats)", series, "importance samples", log_x=True)


def headline(contents: Contents) -> Html:
    """Returns the numbers that a reader looks for first."""
    tiles = []
    for estimate in filter(None, (encoders(contents), other(contents))):
        value = stated(estimate.number("log_likelihood"), estimate.number("standard_error"))
        about = [f"nats, test images, {estimate.name}"]
        if estimate.of_encoder and contents.printed is not None and contents.printed.unit == "log_likelihood":
            about.append(f"paper {contents.printed.value:.2f}")
        tiles.append(_tile(value, *about))
        if contents.printed is not None and contents.printed.unit == "bits_per_dim":
            per_dim = stated(estimate.number("bits_per_dim"), digits=3)
            paper = [f"paper {contents.printed.value:.2f}"] if estimate.of_encoder else []
            tiles.append(_tile(per_dim, f"bits per dimension, {estimate.name}", *paper))
    if contents.best is not None:
        tiles.append(_tile(f"{contents.best['val_elbo']:.2f}", "nats, validation ELBO", f"epoch {contents.best['epoch']} of {len(contents.rows)}"))  # fmt: skip
        tiles.append(_tile(f"{contents.best['val_kl']:.1f}", "nats, validation KL", "of that epoch"))
    return tag("div", *tiles, class_="tiles")


def _tile(value: str, *about: str) -> Html:
    return tag("div", tag("strong", value), *(tag("span", text) for text in about))
