"""The test log-likelihood that the paper prints for a run, and the settings in which the run differs from the paper."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from tfvamp import paper
from tfvamp.config import PAPER_LIKELIHOODS, TrainConfig
from tfvamp.datasets import DatasetSpec

LEARNING_RATES = (1e-4, 5e-4)  # the paper does not say which one is for which table
COLUMNS = tuple(itertools.product(paper.MODELS, paper.PRINTED_PRIORS))  # of Table 1
NOTES = {
    ("static_mnist", "hvae", "standard"): "Table 2 of the paper prints -85.89 for the same cell.",
    ("dynamic_mnist", "convhvae", "vamp"): "Table 3 of the paper prints -79.78 for the same cell.",
}
SPLITS = dict.fromkeys(
    ("omniglot", "frey_faces"),
    "The paper's split of this data set was drawn without a seed and cannot be recovered: its test images are others.",
)
# Settings of where and how something is computed (no result depends on them), and those that define a cell.
APART = {
    "dataset", "model", "prior", "components", "likelihood", "learning_rate", "seed", "pseudo_input_init", "image_size",
    "grayscale", "colour", "background", "checkpoint_minutes", "step_memory", "on_nan", "jit", "deterministic", "device",
    "strategy", "data_dir", "raw_dir",
}  # fmt: skip


class Published(NamedTuple):
    """A number that the paper prints.

    Attributes:
      value: the number, in nats per image or in bits per dimension.
      unit: "log_likelihood" or "bits_per_dim".
      table: table of the paper.
      notes: what a reader must know about the number.
    """

    value: float
    unit: str
    table: int
    notes: tuple[str, ...]


def published(config: TrainConfig) -> Published | None:
    """Returns the paper's number for a data set, model and prior; None if it prints none."""
    cell = (config.dataset, config.model, config.prior)
    values = dict(zip(COLUMNS, paper.TABLE1.get(config.dataset, ()), strict=False))
    table, value = 1, values.get(cell[1:])
    for number, point in ((n, point) for n in (2, 3) for point in paper.TABLES[f"table{n}"]):
        if value is None and (point.dataset, point.model, point.prior) == cell:
            table, value = number, point.published
    if value is None:
        return None
    unit = "bits_per_dim" if config.dataset in paper.IN_BITS else "log_likelihood"
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
