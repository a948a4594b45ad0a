"""The interface that a model needs to be evaluated, and functions that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tensorflow_probability import distributions as tfd

from tfvamp import objectives
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian


class Evaluable(Protocol):
    """A latent-variable model as the evaluation sees it: one of tfvamp's own, or any object with these members.

    Attributes:
      prior: p(z), event shape [D]: a `tfd.Distribution`, or an object that returns one when it is
        called without arguments.
      levels: optional; the stochastic layers below the top one (`objectives.Level`), from the top
        down.

    >>> class Linear:
    ...     prior = tfd.MultivariateNormalDiag([0.0, 0.0])
    ...
    ...     def posterior(self, x):
    ...         return tfd.MultivariateNormalDiag(x / 2.0, [0.7, 0.7])
    ...
    ...     def likelihood(self, z):
    ...         return tfd.MultivariateNormalDiag(z, [1.0, 1.0])
    >>> from tfvamp import log_likelihood
    >>> log_likelihood(Linear(), np.zeros([3, 2], "float32"), num_samples=50).per_example.shape
    (3,)
    """

    prior: Any

    def posterior(self, x) -> Any:
        """Returns q(z | x) for images x [B, H, W, C]: a diagonal normal, batch shape [B], event shape [D]."""

    def likelihood(self, *latents) -> tfd.Distribution:
        """Returns p(x | z) for latents [..., B, D], the top ones first: batch shape [..., B], event shape [H, W, C]."""


def check(model: Any) -> None:
    """Raises TypeError for an object that lacks a member of `Evaluable`."""
    missing = [name for name in ("posterior", "likelihood", "prior") if not hasattr(model, name)]
    if missing:
        raise TypeError(
            "an evaluation needs a model with posterior(x), likelihood(z) and prior, such as those of tfvamp.models; "
            f"{type(model).__name__} has no {', no '.join(missing)}. For Keras models of your own: "
            "tfvamp.evaluation.from_keras(encoder, decoder, prior)"
        )


def posterior_of(model: Evaluable, x) -> DiagonalGaussian:
    """Returns q(z | x) of the top latents."""
    return as_diagonal_gaussian(model.posterior(x))


def prior_of(model: Evaluable) -> tfd.Distribution:
    """Returns p(z) of the top latents, from the current weights."""
    return model.prior if isinstance(model.prior, tfd.Distribution) else model.prior()


def levels_of(model: Evaluable) -> Sequence[objectives.Level]:
    """Returns the stochastic layers below the top one."""
    return tuple(getattr(model, "levels", ()))


def latent_names(model: Evaluable) -> list[str]:
    """Returns the names of the stochastic layers, the top one first."""
    levels = levels_of(model)
    return list(getattr(model, "latent_names", ["z", *(level.name for level in levels)]))


def is_convolutional(model: Evaluable) -> bool:
    """Returns whether the model says that each pixel has features of its own, which makes its decoder slow."""
    return getattr(model, "features_per_pixel", 1) > 1
