"""Training runs."""

from tfvamp.training.loop import Outcome, build_model, model_for, resume, train
from tfvamp.training.run_folder import RunFolder

__all__ = ["Outcome", "RunFolder", "build_model", "model_for", "resume", "train"]
