"""Every data set by its short name, with the paper's defaults for it."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What a data set is and how the paper treats it.

    Attributes:
      name: its short name on the command line.
      tfds_name: its name in TFDS.
      title: what it is, in words.
      shape: one image, (H, W, C).
      binarization: "none" for pixels that are 0 or 1 already; "dynamic" for grey pixels read as
        Bernoulli means: training images drawn anew in each batch, the others once.
      likelihood: the default likelihood.
      num_components: the paper's K.
      pseudo_input_mean, pseudo_input_std: the initial pseudo-inputs, N(mean, std^2).
      learning_rate: what validation chose (docs/results.md) or, for mnist5k, the published code's.
    """

    name: str
    tfds_name: str
    title: str
    shape: tuple[int, int, int]
    binarization: Literal["none", "dynamic"]
    likelihood: str
    num_components: int
    pseudo_input_mean: float
    pseudo_input_std: float
    learning_rate: float


_SPECS = (
    DatasetSpec(
        name="mnist5k",
        tfds_name="mnist5k",
        title="5,000 MNIST digits that need no download (4000/500/500)",
        shape=(28, 28, 1),
        binarization="dynamic",
        likelihood="bernoulli",
        num_components=500,
        pseudo_input_mean=0.05,
        pseudo_input_std=0.01,
        learning_rate=5e-4,
    ),
    DatasetSpec(
        name="caltech101",
        tfds_name="caltech101_silhouettes",
        title="Caltech 101 Silhouettes 28x28, split 1 (4100/2264/2307), not the photographs",
        shape=(28, 28, 1),
        binarization="none",
        likelihood="bernoulli",
        num_components=500,
        pseudo_input_mean=0.5,
        pseudo_input_std=0.02,
        learning_rate=1e-4,
    ),
)

CATALOG: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
