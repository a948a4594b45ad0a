"""The learning rate of an epoch. It depends only on settings and history, so that a resumed run has the same."""

from __future__ import annotations

import math

from tfvamp.config import TrainConfig
from tfvamp.runs import history


def learning_rate(config: TrainConfig, rows: list[dict[str, float]]) -> float:
    """Returns the learning rate of the epoch after `rows`.

    constant: the setting. cosine: falls from the setting to `schedule_floor` of it along half a cosine,
    over `schedule_epochs`. plateau: is multiplied by `plateau_factor` after each `plateau_patience`
    epochs without a better validation bound, down to the floor. The warm-up, in which bounds fall as
    beta rises, does not count as a plateau.

    Args:
      config: resolved settings.
      rows: rows of the history so far.
    """
    assert config.learning_rate is not None
    if config.schedule == "constant":
        return config.learning_rate
    floor = config.schedule_floor
    if config.schedule == "cosine":
        share = min(1.0, len(rows) / (config.schedule_epochs or config.epochs))
        return config.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share)))
    best, waited, factor = -math.inf, 0, 1.0
    for row in rows:
        bound = history.bound(row, config.beta)
        waited = 0 if bound > best or row["epoch"] < config.warmup else waited + 1
        best = max(best, bound)
        if waited >= config.plateau_patience:
            factor, waited = max(floor, factor * config.plateau_factor), 0
    return config.learning_rate * factor
