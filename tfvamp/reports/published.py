"""The test log-likelihoods that the paper prints: Tomczak and Welling (2018), Tables 1 to 3."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfvamp.config import PAPER_LIKELIHOODS, TrainConfig
from tfvamp.datasets import DatasetSpec

SAMPLES = 5000  # importance samples per image, from the encoder's q
LEARNING_RATES = (1e-4, 5e-4)  # the paper does not say which is of which table
BITS = ("frey_faces", "histopathology")  # in bits per dimension, where lower is better; the others in nats
COLUMNS = tuple((model, prior) for model in ("vae", "hvae", "convhvae", "pixelhvae") for prior in ("standard", "vamp"))  # fmt: skip
TABLE_1 = {
    "static_mnist": (-88.56, -85.57, -86.05, -83.19, -82.41, -81.09, -80.58, -79.78),
    "dynamic_mnist": (-84.50, -82.38, -82.42, -81.24, -80.40, -79.75, -79.70, -78.45),
    "omniglot": (-108.50, -104.75, -103.52, -101.18, -97.65, -97.56, -90.11, -89.76),
    "caltech101": (-123.43, -114.55, -112.08, -108.28, -106.35, -104.22, -85.51, -86.22),
    "frey_faces": (4.63, 4.57, 4.61, 4.51, 4.49, 4.45, 4.43, 4.38),
    "histopathology": (6.07, 6.04, 5.82, 5.75, 5.59, 5.58, 4.84, 4.82),
}
OTHER_TABLES = {
    ("static_mnist", "hvae", "mog"): (2, -85.07),
    ("static_mnist", "hvae", "vamp-data"): (2, -85.71),
    ("dynamic_mnist", "hvae", "vamp-data"): (3, -81.71),
}
NOTES = {
    ("static_mnist", "hvae", "standard"): "Table 2 of the paper prints -85.89 for the same cell.",
    ("dynamic_mnist", "convhvae", "vamp"): "Table 3 of the paper prints -79.78 for the same cell.",
}
SPLITS = dict.fromkeys(
    ("omniglot", "frey_faces"),
    "The paper's split of this data set was drawn without a seed and cannot be recovered: its test images are others.",
)
# Settings that say where and how something is computed, and what a cell of the paper is; no result depends on the first.
APART = {
    "dataset", "model", "prior", "components", "likelihood", "learning_rate", "seed", "pseudo_input_init", "image_size",
    "grayscale", "colour", "background", "checkpoint_minutes", "step_memory", "on_nan", "jit", "deterministic", "device",
    "strategy", "data_dir", "raw_dir",
}  # fmt: skip


class Published(NamedTuple):
    """A number that the paper prints.

    Attributes:
      value: in nats per image, or in bits per dimension.
      unit: "log_likelihood" or "bits_per_dim".
      table: of the paper.
      notes: what a reader must know of it.
    """

    value: float
    unit: str
    table: int
    notes: tuple[str, ...]


def published(config: TrainConfig) -> Published | None:
    """Returns the paper's number for a data set, model and prior; None where it prints none."""
    cell = (config.dataset, config.model, config.prior)
    values = dict(zip(COLUMNS, TABLE_1.get(config.dataset, ()), strict=False))
    table, value = OTHER_TABLES.get(cell, (1, values.get(cell[1:])))
    if value is None:
        return None
    unit = "bits_per_dim" if config.dataset in BITS else "log_likelihood"
    notes = [text for text in (NOTES.get(cell), SPLITS.get(config.dataset)) if text]
    return Published(value, unit, table, tuple(notes))


def departures(config: TrainConfig, spec: DatasetSpec) -> list[str]:
    """Returns the settings in which a run differs from those of the paper, such as "batch_size 50 (100)"."""
    usual: dict[str, Any] = {
        name: value for name, value in TrainConfig().to_dict().items() if name not in APART
    }
    if config.mixture:
        usual["components"] = spec.num_components
    found = [
        f"{name} {getattr(config, name)} ({value})"
        for name, value in usual.items()
        if getattr(config, name) != value
    ]
    if config.likelihood not in (spec.likelihood, PAPER_LIKELIHOODS.get(spec.likelihood)):
        found.append(f"likelihood {config.likelihood} ({spec.likelihood})")
    if config.learning_rate not in LEARNING_RATES:
        found.append(f"learning_rate {config.learning_rate:g} (1e-4 or 5e-4)")
    return found
