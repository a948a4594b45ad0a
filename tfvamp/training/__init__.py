"""Training runs."""

from tfvamp.training.dry_run import dry_run
from tfvamp.training.loop import Outcome, resume, spoken, train

__all__ = ["Outcome", "dry_run", "resume", "spoken", "train"]
