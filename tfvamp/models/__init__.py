"""Whole models as Keras models."""

from tfvamp.models.base import LIKELIHOODS, OBJECTIVES, PRIORS, LatentVariableModel, Objective
from tfvamp.models.clone import clone_model
from tfvamp.models.hvae import HVAE
from tfvamp.models.vae import VAE

MODELS: dict[str, type[LatentVariableModel]] = {"vae": VAE, "hvae": HVAE}

__all__ = [
    "HVAE",
    "LIKELIHOODS",
    "MODELS",
    "OBJECTIVES",
    "PRIORS",
    "VAE",
    "LatentVariableModel",
    "Objective",
    "clone_model",
]
