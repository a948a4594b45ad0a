"""Evaluation of trained models."""

from tfvamp.evaluation.diagnostics import active_units
from tfvamp.evaluation.estimate import LogLikelihood
from tfvamp.evaluation.importance import as_images, check_refinement, encode, log_likelihood
from tfvamp.evaluation.protocol import Evaluable

__all__ = [
    "Evaluable",
    "LogLikelihood",
    "active_units",
    "as_images",
    "check_refinement",
    "encode",
    "log_likelihood",
]
