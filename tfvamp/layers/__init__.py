"""Keras layers whose outputs are TFP distributions."""

from tfvamp.layers.discretized_logistic import DiscretizedLogistic, DiscretizedLogisticLikelihood
from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.exemplar_prior import ExemplarPriorLayer
from tfvamp.layers.flow_prior import FlowDistribution, FlowPriorLayer
from tfvamp.layers.gated import GatedConv2D, GatedDense
from tfvamp.layers.gaussian import DiagonalGaussian, GaussianPosterior, GaussianSample, as_diagonal_gaussian
from tfvamp.layers.kl_divergence import KLDivergence
from tfvamp.layers.likelihoods import BernoulliLikelihood, LikelihoodLayer
from tfvamp.layers.masked_conv import MaskedConv2D
from tfvamp.layers.mixture import DiagonalGaussianMixture
from tfvamp.layers.normal_likelihood import GaussianLikelihood
from tfvamp.layers.priors import (
    MixtureOfGaussiansPriorLayer,
    MixturePriorLayer,
    PriorLayer,
    StandardNormalPriorLayer,
)
from tfvamp.layers.reconstruction_loss import ReconstructionLoss
from tfvamp.layers.vamp_prior import VampMixturePriorLayer, VampPriorLayer

__all__ = [
    "BernoulliLikelihood",
    "DiagonalGaussian",
    "DiagonalGaussianMixture",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DistributionLayer",
    "ExemplarPriorLayer",
    "FlowDistribution",
    "FlowPriorLayer",
    "GatedConv2D",
    "GatedDense",
    "GaussianLikelihood",
    "GaussianPosterior",
    "GaussianSample",
    "KLDivergence",
    "LikelihoodLayer",
    "MaskedConv2D",
    "MixtureOfGaussiansPriorLayer",
    "MixturePriorLayer",
    "PriorLayer",
    "ReconstructionLoss",
    "StandardNormalPriorLayer",
    "VampMixturePriorLayer",
    "VampPriorLayer",
    "as_diagonal_gaussian",
]
