"""tfvamp: learned priors for variational auto-encoders in TensorFlow and Keras.

Importing it registers the TFDS builders and the Keras classes.

Shapes: S samples, B batch, K components, D latent dimensions, H W C an image; always in the
order [S, B, K, D]. Log-probabilities, ELBO and log-likelihood are in nats.
"""

from tfvamp.backend import check_backend

check_backend()  # before anything imports Keras

from tfvamp import callbacks, datasets, evaluation, export, layers, losses, models, seeds, training
from tfvamp.config import TrainConfig
from tfvamp.errors import TfvampError
from tfvamp.evaluation import log_likelihood
from tfvamp.models import clone_model
from tfvamp.reports import report
from tfvamp.runs import Run, compare, diagnose, evaluate, find_runs, load, rate_distortion
from tfvamp.training import resume, train

__all__ = [
    "Run",
    "TfvampError",
    "TrainConfig",
    "callbacks",
    "clone_model",
    "compare",
    "datasets",
    "diagnose",
    "evaluate",
    "evaluation",
    "export",
    "find_runs",
    "layers",
    "load",
    "log_likelihood",
    "losses",
    "models",
    "rate_distortion",
    "report",
    "resume",
    "seeds",
    "train",
    "training",
]
