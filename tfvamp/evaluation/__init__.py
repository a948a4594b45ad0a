"""Evaluation of trained models."""

from tfvamp.evaluation.diagnostics import active_units
from tfvamp.evaluation.log_likelihood import Evaluation, encode, evaluate

__all__ = ["Evaluation", "active_units", "encode", "evaluate"]
