"""Evaluation of trained models."""

from tfvamp.evaluation.diagnostics import active_units
from tfvamp.evaluation.estimate import LogLikelihood
from tfvamp.evaluation.images import as_images, encode
from tfvamp.evaluation.likelihood import Bracket, bracket, log_likelihood
from tfvamp.evaluation.protocol import Evaluable
from tfvamp.evaluation.refining import check_memory

__all__ = [
    "Bracket",
    "Evaluable",
    "LogLikelihood",
    "active_units",
    "as_images",
    "bracket",
    "check_memory",
    "encode",
    "log_likelihood",
]
