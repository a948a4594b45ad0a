"""The parts of a report on one run, except its evaluations and its model card."""

from __future__ import annotations

import numpy as np

from tfvamp.config import TrainConfig, fields
from tfvamp.evaluation import diagnostics
from tfvamp.models import MODELS as CLASSES
from tfvamp.plots import FEW_EPOCHS
from tfvamp.reports import charts
from tfvamp.reports.contents import Contents
from tfvamp.reports.html import Html, facts, items, joined, picture, section, table, tag
from tfvamp.runs.comparing import PLACES

MODELS = {"vae": "VAE", "hvae": "HVAE", "convvae": "ConvVAE", "convhvae": "convHVAE", "pixelhvae": "PixelHVAE"}  # fmt: skip
PANELS = {"elbo": "ELBO (nats)", "reconstruction": "E[log p(x | z)] (nats)", "kl": "KL (nats)"}
CUT = ("elbo", "reconstruction")  # curves whose first epochs are far below everything that follows
MOST_LAYERS = 8  # maximum number of layers in a chart
UNSET = {field.name: field.metadata["unset"] for field, _ in fields()}


def described(contents: Contents) -> str:
    """Returns a run in one line: model, prior, data."""
    config = contents.document.settings
    mixture = f" (K = {config.components})" if config.mixture else ""
    base = f" over {config.flow_base}" if config.prior_kind.over_another else ""
    return f"{MODELS[config.model]} with the prior {config.prior}{base}{mixture}, {contents.document.spec.title or contents.document.spec.name}"


def curves(contents: Contents) -> Html:
    """Returns the training curves; empty for a run without epochs."""
    rows, best = contents.rows, contents.best
    if best is None:
        return Html()
    epochs = [row["epoch"] for row in rows]
    figures = []
    for name, title in PANELS.items():
        validation = [row[f"val_{name}"] for row in rows]
        low = float(np.percentile(validation, 10)) if len(rows) > FEW_EPOCHS and name in CUT else None
        series = [
            charts.Line("training", epochs, [row[f"train_{name}"] for row in rows], 0),
            charts.Line("validation", epochs, validation, 1),
        ]
        figures.append(charts.lines(title, series, "epoch", low, best["epoch"]))
    layers = [name for name in rows[0] if name.startswith("val_kl_z")][:MOST_LAYERS]
    if layers:
        series = [
            charts.Line(name.removeprefix("val_kl_"), epochs, [row[name] for row in rows], colour)
            for colour, name in enumerate(layers)
        ]
        figures.append(charts.lines("Validation KL by layer (nats)", series, "epoch", mark=best["epoch"]))
    if "learning_rate" in rows[0]:
        series = [charts.Line("learning rate", epochs, [row["learning_rate"] for row in rows], 0)]
        figures.append(charts.lines("Learning rate", series, "epoch"))
    about = f"The dotted line is the best epoch, {best['epoch']} of {len(rows)}, whose weights are kept."
    if contents.document.settings.warmup > 1:
        about += f" The weight of the KL in training rises over {contents.document.settings.warmup} epochs; validation has the whole KL."
    return section("Training", tag("p", about), tag("div", *figures, class_="charts"))


def pictures(contents: Contents) -> Html:
    """Returns the grids of images; empty if there are none."""
    if not contents.pictures:
        return Html()
    shown = [
        picture(one.png, joined(tag("b", one.title), Html(" "), one.caption), f"{one.title}: {one.caption}")
        for one in contents.pictures
    ]
    return section("Images", tag("div", *shown, class_="pictures"))


def diagnosis(contents: Contents) -> Html:
    """Returns what `tfvamp diagnose` found; empty if it was not run."""
    if contents.diagnosis is None:
        return Html()
    figures = []
    series = [
        charts.Line(name, np.arange(1, len(of) + 1), np.log10(np.maximum(of, 1e-8)), colour)
        for colour, (name, of) in enumerate(contents.variances.items())
    ]
    if series:
        title = f"log10 variance of the posterior means (active: at least {np.log10(diagnostics.ACTIVITY_THRESHOLD):g})"
        figures.append(charts.lines(title, series, "latent, by variance"))
    if contents.shares is not None:
        ranks = np.arange(1, len(contents.shares) + 1)
        line = charts.Line("share of the test latents", ranks, contents.shares, 2)
        figures.append(charts.lines("Shares of the components", [line], "component, by share"))
    return section(
        "Diagnosis",
        tag("p", contents.diagnosed),
        items(_signed(text) for text in contents.findings),
        facts({name: _signed(text) for name, text in contents.diagnosis.items()}),
        tag("div", *figures, class_="charts"),
    )


def _signed(text: str) -> str:
    return text.replace("+-", "±")


def settings(contents: Contents) -> Html:
    """Returns all settings, first those that are not the default."""
    config, spec = contents.document.settings, contents.document.spec
    values = {name: value for name, value in config.to_dict().items() if name not in PLACES}
    usual = TrainConfig().to_dict() | {"learning_rate": spec.learning_rate, "likelihood": spec.likelihood}
    usual["jit"] = CLASSES[config.model].faster_with_xla
    if config.mixture:
        usual["components"] = spec.num_components
    shown = {name: _shown(name, value) for name, value in values.items()}
    changed = [name for name, value in values.items() if value != usual[name] and name != "dataset"]
    parts = []
    if changed:
        rows = [[name, shown[name], _shown(name, usual[name])] for name in changed]
        parts += [
            table(["setting", "this run", "default"], rows),
            tag("h4", "All others have their defaults"),
        ]
    others = {name: text for name, text in shown.items() if name not in changed}
    return section("Settings", *parts, facts(others, "facts dense"))


def plain(value: object) -> str:
    """Returns the value of a setting as text."""
    return (
        {True: "yes", False: "no"}[value]
        if isinstance(value, bool)
        else "none"
        if value is None
        else str(value)
    )


def _shown(name: str, value: object) -> str:
    """Returns the value of a setting as text, or what its help says if it is not set."""
    return (value is None and UNSET.get(name)) or plain(value)
