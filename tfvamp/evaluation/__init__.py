"""Evaluation of trained models."""

from tfvamp.evaluation.diagnostics import active_units, plane
from tfvamp.evaluation.estimate import LogLikelihood
from tfvamp.evaluation.from_keras import from_keras
from tfvamp.evaluation.images import as_images, encode
from tfvamp.evaluation.likelihood import Bracket, bracket, bracketed, estimated, log_likelihood
from tfvamp.evaluation.needs import check_memory, latent_dims, say_time
from tfvamp.evaluation.protocol import Evaluable, is_convolutional

__all__ = [
    "Bracket",
    "Evaluable",
    "LogLikelihood",
    "active_units",
    "as_images",
    "bracket",
    "bracketed",
    "check_memory",
    "encode",
    "estimated",
    "from_keras",
    "is_convolutional",
    "latent_dims",
    "log_likelihood",
    "plane",
    "say_time",
]
