"""Whole models as Keras models."""

from tfvamp.models.base import (
    LIKELIHOODS,
    OBJECTIVES,
    PRIORS,
    LatentVariableModel,
    Objective,
    importance_samples,
    likelihood_layer,
)
from tfvamp.models.clone import clone_model
from tfvamp.models.hvae import HVAE, ConvHVAE, PixelHVAE
from tfvamp.models.vae import VAE, ConvVAE

MODELS: dict[str, type[LatentVariableModel]] = {
    "vae": VAE,
    "hvae": HVAE,
    "convvae": ConvVAE,
    "convhvae": ConvHVAE,
    "pixelhvae": PixelHVAE,
}

__all__ = [
    "HVAE",
    "LIKELIHOODS",
    "MODELS",
    "OBJECTIVES",
    "PRIORS",
    "VAE",
    "ConvHVAE",
    "ConvVAE",
    "LatentVariableModel",
    "Objective",
    "PixelHVAE",
    "clone_model",
    "importance_samples",
    "likelihood_layer",
]
