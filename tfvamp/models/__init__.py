"""Whole models as Keras models."""

from tfvamp.models.clone import clone_model
from tfvamp.models.vae import LIKELIHOODS, PRIORS, VAE

__all__ = ["LIKELIHOODS", "PRIORS", "VAE", "clone_model"]
