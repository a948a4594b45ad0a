"""The objective of training, as a setting of a model."""

from __future__ import annotations

import dataclasses

from tfvamp import objectives
from tfvamp.config import IMPORTANCE_SAMPLES, OBJECTIVES, TrainConfig
from tfvamp.errors import UsageError, check_choice
from tfvamp.layers.gaussian import DiagonalGaussian


@dataclasses.dataclass(frozen=True)
class Objective:
    """A bound on log p(x), and the number of samples by which it is estimated.

    Attributes:
      name: "elbo" or "iwae".
      num_samples: L, number of samples averaged outside the logarithm.
      importance_samples: S, number of samples averaged inside it; only for "iwae", where None means
        5.
      dreg: whether to use the doubly reparameterised gradient of Tucker and others (2019); only for
        "iwae".

    Raises:
      UsageError: the name is unknown, a number is below 1, or an option of "iwae" is given for
        "elbo".

    >>> Objective("iwae", importance_samples=10, dreg=True).num_draws
    10
    """

    name: str = TrainConfig.objective
    num_samples: int = TrainConfig.num_samples
    importance_samples: int | None = TrainConfig.importance_samples
    dreg: bool = TrainConfig.dreg

    def __post_init__(self):
        check_choice("objective", self.name, OBJECTIVES)
        if self.num_samples < 1 or self.samples_inside < 1:
            raise UsageError(
                "the numbers of samples and of importance samples must be at least 1; "
                f"got {self.num_samples} and {self.samples_inside}"
            )
        if self.name == "elbo" and (self.samples_inside > 1 or self.dreg):
            raise UsageError(
                "importance_samples and dreg (the doubly reparameterised gradient) go with the objective iwae, not "
                "with elbo"
            )

    @property
    def samples_inside(self) -> int:
        """The number of importance samples S, as given or by default."""
        if self.importance_samples is not None:
            return self.importance_samples
        return IMPORTANCE_SAMPLES if self.name == "iwae" else 1

    @property
    def num_draws(self) -> int:
        """The number of latents per image and step, L S."""
        return self.num_samples * self.samples_inside

    def bound(
        self, posterior: DiagonalGaussian, generator: objectives.Generator, images, noise, beta, inputs=None
    ) -> objectives.Bound:
        """Returns the bound for each image, [B], in nats, from `num_draws` draws of noise; `inputs` as in `objectives.elbo`."""
        if self.name == "elbo":
            return objectives.elbo(posterior, generator, images, noise, beta, inputs)
        return objectives.iwae_bound(
            posterior, generator, images, noise, beta, self.samples_inside, self.dreg, inputs
        )
