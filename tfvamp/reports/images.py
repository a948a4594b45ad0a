"""The pictures of a report, drawn from the weights; none is copied from a run folder."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np

from tfvamp import plots
from tfvamp.errors import TfvampError
from tfvamp.runs import Run, pictures

MOST_PIXELS = 2**20  # maximum number of pixels of a picture


@dataclasses.dataclass(frozen=True)
class Look:
    """The choice of pictures in a report.

    Attributes:
      images: maximum number of images in a picture; 0 for a report without pictures.
      seed: seed of what is drawn.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`.
    """

    images: int = 64
    seed: int = 0
    dataset: str | None = None
    data_dir: str | os.PathLike | None = None
    raw_dir: str | os.PathLike | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A grid of images.

    Attributes:
      title, caption: what it shows.
      png: the file.
    """

    title: str
    caption: str
    png: bytes


def pictures_of(run: Run, look: Look, note: Callable[[str], None]) -> tuple[int, list[Picture]]:
    """Returns the number of weights of a run's model, and its samples, pseudo-inputs and reconstructions.

    Args:
      run: the run.
      look: which pictures are drawn.
      note: a function that gets one line of text about what is left out.

    Raises:
      RunError: the run has no weights, or they are damaged.
    """
    model = run.model()
    height, width, _ = run.spec.shape
    most = max(2, min(look.images, MOST_PIXELS // (height * width)))
    samples = model.sample(most, look.seed).numpy()
    shown = "means of p(x | z)" if model.has_mean else "drawn from p(x | z)"
    found = [_grid("Samples", f"{most} images from the prior: {shown}, z ~ p(z). Seed {look.seed}.", samples)]
    components = pictures.components(model, most, look.seed)
    if components is not None:
        pairs = _side_by_side(components.pseudo_inputs, components.generated)
        caption = f"The first {len(components.pseudo_inputs)}, with their contrast stretched, each with what it generates to the right."
        found.append(_grid("Pseudo-inputs", caption, pairs))
    elif (centres := model.prior.centres()) is not None:
        images = pictures.generated(model, centres[:most], look.seed)
        found.append(_grid("Components", f"What the first {len(images)} generate at their means.", images))
    try:
        images = run.dataset(most // 2, look.dataset, look.data_dir, look.raw_dir).test.array()[0]
        pairs = _side_by_side(images, model(images).numpy())
        caption = "Test images, each with its reconstruction to the right."
        found.append(_grid("Reconstructions", caption, pairs))
    except TfvampError as error:
        note(f"reconstructions are left out: {error}")
    return int(model.count_params()), found


def _grid(title: str, caption: str, images: np.ndarray) -> Picture:
    columns = 2 * math.ceil(math.sqrt(len(images)) / 2)  # an even number, so that pairs stay together
    return Picture(title, caption, plots.bare_grid(images, 1, plots.Look(columns=columns)))


def _side_by_side(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns images [n, ...] and [at least n, ...] alternating, [2 n, ...]."""
    return np.stack([ours, theirs[: len(ours)]], axis=1).reshape(-1, *ours.shape[1:])
