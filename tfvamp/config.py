"""The settings of a training run: a frozen dataclass, its checks, its presets, its JSON form."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from tfvamp import seeds
from tfvamp.datasets.catalog import CATALOG, OWN, DatasetSpec
from tfvamp.errors import UsageError, check_choice
from tfvamp.models import LIKELIHOODS, MODELS, PRIORS, Objective, importance_samples

PIXELS = {"bernoulli": "pixels are 0 or 1", "logistic": "pixels are grey"}
PSEUDO_INPUT_INITS = ("normal", "images")

# Settings of the paper's published code where ours differ; docs/results.md says why they do.
PRESETS: dict[str, dict[str, Any]] = {"paper": {"learning_rate": 5e-4, "likelihood": "paper"}}
# The forms of the paper's code, by what fits the data: the setting "paper" stands for one of them.
PAPER_LIKELIHOODS = {"bernoulli": "bernoulli-clipped", "logistic": "logistic-paper"}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What `tfvamp train` does. None means: the default of the data set (`tfvamp.datasets.CATALOG`) or of the model.

    Attributes:
      dataset: short name of the data set; or "npz:FILE", "folder:DIR", "tfds:NAME[/CONFIG][:IMAGE_KEY]".
      model: name of the model.
      prior: name of the prior.
      components: K, the number of components of a mixture prior.
      epochs: most epochs.
      batch_size: B.
      learning_rate: of Adam on normalised gradients.
      warmup: epochs over which beta, the weight of the KL, rises to 1: min(1, epoch / warmup).
      patience: epochs without a better validation ELBO that training bears before it stops.
      seed: of initial weights, noise, data order and binarisation.
      likelihood: name of the likelihood; "paper" for the form of the paper's code that fits the data.
      latent_dims: D.
      hidden_units: width of the hidden layers.
      pseudo_input_init: "normal" (the data set's mean and deviation) or "images" (random
        training images plus N(0, 0.01^2)); the prior vamp-data always takes plain images.
      objective: "elbo" or "iwae".
      num_samples: L, samples averaged outside the logarithm in training.
      importance_samples: S, samples averaged inside it; "iwae" alone, where None means 5.
      dreg: the doubly reparameterised gradient; "iwae" alone.
      jit: compile with XLA; None for what is faster for the model (`LatentVariableModel.faster_with_xla`).
      limit: at most this many examples of each split.
      image_size: "HxW" to which one's own images are brought.
      grayscale: make one's own images grey.
      binarize: of one's own images: "none", "threshold" or "dynamic".
      data_dir: where prepared data are kept.
      raw_dir: folder with source files fetched by hand.
    """

    dataset: str = "mnist5k"
    model: str = "vae"
    prior: str = "vamp"
    components: int | None = None
    epochs: int = 2000
    batch_size: int = 100
    learning_rate: float | None = None
    warmup: int = 100
    patience: int = 50
    seed: int = 0
    likelihood: str | None = None
    latent_dims: int = 40
    hidden_units: int = 300
    pseudo_input_init: str = "normal"
    objective: str = "elbo"
    num_samples: int = 1
    importance_samples: int | None = None
    dreg: bool = False
    jit: bool | None = None
    limit: int | None = None
    image_size: str | None = None
    grayscale: bool = False
    binarize: str | None = None
    data_dir: str | None = None
    raw_dir: str | None = None

    def __post_init__(self):
        for name, hint in typing.get_type_hints(type(self)).items():
            if not _has_type(getattr(self, name), hint):
                raise UsageError(
                    f"setting {name!r} must be of type {_type_name(hint)}; got {getattr(self, name)!r}"
                )
        if not self.dataset.startswith(OWN):
            check_choice("data set", self.dataset, CATALOG)
        check_choice("model", self.model, MODELS)
        check_choice("prior", self.prior, PRIORS)
        check_choice("pseudo-input initialisation", self.pseudo_input_init, PSEUDO_INPUT_INITS)
        if self.likelihood is not None:
            check_choice("likelihood", self.likelihood, (*LIKELIHOODS, "paper"))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}; got {value}")
        MODELS[self.model].check_objective(self._objective())
        if self.seed > seeds.LARGEST:
            raise UsageError(f"seed must be at most {seeds.LARGEST}; got {self.seed}")
        if self.learning_rate is not None and not 0.0 < self.learning_rate < float("inf"):
            raise UsageError(f"learning_rate must be a positive number; got {self.learning_rate}")

    def _objective(self) -> Objective:
        count = importance_samples(self.objective, self.importance_samples)
        return Objective(self.objective, self.num_samples, count, self.dreg)

    def resolve(self, spec: DatasetSpec) -> TrainConfig:
        """The same settings with the data set's defaults in place of None.

        Raises:
          UsageError: the likelihood does not fit the data.
        """
        defaults: dict[str, Any] = {
            "components": spec.num_components,
            "learning_rate": spec.learning_rate,
            "likelihood": spec.likelihood,
            "importance_samples": self._objective().num_importance_samples,
        }
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if self.jit is None:
            missing["jit"] = MODELS[self.model].faster_with_xla
        if self.likelihood == "paper":
            missing["likelihood"] = PAPER_LIKELIHOODS[spec.likelihood]
        resolved = dataclasses.replace(self, **missing)
        fitting = (spec.likelihood, PAPER_LIKELIHOODS[spec.likelihood])
        if resolved.likelihood not in fitting:
            raise UsageError(
                f"the likelihood {self.likelihood} does not fit {spec.name}, whose {PIXELS[spec.likelihood]}: "
                f"choose --likelihood {' or '.join(fitting)}"
            )
        return resolved

    def loading(self) -> dict[str, Any]:
        """What `datasets.load` needs to know beside the name and the folders."""
        return {"image_size": self.image_size, "grayscale": self.grayscale, "binarize": self.binarize}

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`.

        Raises:
          UsageError: an unknown key (names the nearest) or a value of the wrong type.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            check_choice("setting", name, names)
        return cls(**settings)

    @classmethod
    def from_preset(cls, preset: str | None, **settings: Any) -> TrainConfig:
        """Settings on top of a preset of `PRESETS` (None: no preset)."""
        if preset is not None:
            check_choice("preset", preset, PRESETS)
            settings = {**PRESETS[preset], **settings}
        return cls.from_dict(settings)


_LEAST = {
    "components": 1,
    "epochs": 1,
    "batch_size": 1,
    "warmup": 0,
    "patience": 0,
    "seed": 0,
    "latent_dims": 1,
    "hidden_units": 1,
    "limit": 1,
}


def _has_type(value: Any, hint: Any) -> bool:
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) or (isinstance(value, int) and float in allowed)


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not isinstance(hint, types.UnionType) else str(hint)
