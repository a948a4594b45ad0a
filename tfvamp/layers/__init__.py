"""Keras layers whose outputs are TFP distributions."""

from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.gated import GatedDense
from tfvamp.layers.gaussian import DiagonalGaussian, GaussianPosterior, GaussianSample, as_diagonal_gaussian
from tfvamp.layers.kl_divergence import KLDivergence
from tfvamp.layers.likelihoods import BernoulliLikelihood
from tfvamp.layers.mixture import DiagonalGaussianMixture
from tfvamp.layers.priors import (
    MixtureOfGaussiansPriorLayer,
    PriorLayer,
    StandardNormalPriorLayer,
    VampPriorLayer,
)

__all__ = [
    "BernoulliLikelihood",
    "DiagonalGaussian",
    "DiagonalGaussianMixture",
    "DistributionLayer",
    "GatedDense",
    "GaussianPosterior",
    "GaussianSample",
    "KLDivergence",
    "MixtureOfGaussiansPriorLayer",
    "PriorLayer",
    "StandardNormalPriorLayer",
    "VampPriorLayer",
    "as_diagonal_gaussian",
]
