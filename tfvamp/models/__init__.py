"""Whole models as Keras models."""

from tfvamp.config import LIKELIHOODS, OBJECTIVES, PRIORS
from tfvamp.models.base import LatentVariableModel
from tfvamp.models.choices import build_prior, likelihood_layer
from tfvamp.models.clone import clone_model
from tfvamp.models.hvae import HVAE, ConvHVAE, PixelHVAE
from tfvamp.models.objective import Objective
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
    "build_prior",
    "clone_model",
    "likelihood_layer",
]
