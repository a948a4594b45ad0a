"""The settings of a training run, each written once: name, type, default, help and check.

The command line makes its options from the fields of `TrainConfig`, and reads this file without
importing the rest of tfvamp: it needs only the standard library and the other files on the ground
floor.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import tomllib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from .catalog import BINARIZATIONS, CATALOG, OWN, DatasetSpec
from .errors import UsageError, check_choice
from .files import expanded, printable, read_bytes, shown

MODELS = ("vae", "hvae", "convvae", "convhvae", "pixelhvae")


class PriorKind(NamedTuple):
    """The properties of a prior.

    Attributes:
      mixture: whether it has a number of components.
      pseudo_inputs: "learned", "images" (K fixed training images), "exemplars" (all training images), or None.
      over_another: whether it transforms another prior, its base.
    """

    mixture: bool = True
    pseudo_inputs: Literal["learned", "images", "exemplars"] | None = None
    over_another: bool = False


PRIORS = {
    "standard": PriorKind(mixture=False),
    "mog": PriorKind(),
    "vamp": PriorKind(pseudo_inputs="learned"),
    "vamp-data": PriorKind(pseudo_inputs="images"),
    "vamp-weighted": PriorKind(pseudo_inputs="learned"),
    "vamp-mixture": PriorKind(pseudo_inputs="learned"),
    "exemplar": PriorKind(pseudo_inputs="exemplars"),
    "flow": PriorKind(mixture=False, over_another=True),
}
LEVEL_PRIORS = ("normal", "vamp")
FLOW_BASES = tuple(name for name, kind in PRIORS.items() if not kind.over_another)
FLOW_TRANSFORMS = ("affine", "spline")
LIKELIHOODS = ("bernoulli", "bernoulli-clipped", "logistic", "logistic-paper")
OBJECTIVES = ("elbo", "iwae")
ON_NAN = ("stop", "skip")
SCHEDULES = ("constant", "cosine", "plateau")
OPTIMIZERS = (
    "normalized-adam", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion", "muon",
    "nadam", "rmsprop", "sgd",
)  # fmt: skip
NEEDS_SIZE = "folder: needs --image-size HxW, the size that all images are brought to"
DECAYED = ("decoder", "encoder", "both")
STRATEGIES = ("one", "mirrored", "multiworker", "auto")
STOP_BY = ("elbo", "iwae")
PSEUDO_INPUT_INITS = ("normal", "images")
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = typing.get_args(SplitName)
ESTIMATORS = ("importance", "ais", "bdmc")
DENSITIES = ("exact", "bound", "estimate")  # kinds of a prior's log-density
PROPOSALS = ("encoder", "refined", "prior")  # what samples and chains start from
FORMATS = ("png", "pdf", "svg")  # of pictures
BACKGROUNDS = ("white", "black")  # of transparent images
LARGEST_SEED = 2**31 - 1
LARGEST_NUMBER = 2**53
IMPORTANCE_SAMPLES = 5  # the default in training with "iwae"
PIXELS = {"bernoulli": "pixels are 0 or 1", "logistic": "pixels have many levels"}
LARGEST_TOML = 2**20  # bytes

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's published code, where ours differs; docs/results.md says why.
    "paper": {"learning_rate": 5e-4, "likelihood": "paper"},
    # What raised the validation bound most in docs/study.md; for models of dense layers.
    "best": {"average": 0.999, "input_dropout": 0.2, "decoder_layers": 1},
}
# The forms of the paper's code, by the likelihood that fits the data; the setting "paper" selects one of them.
PAPER_LIKELIHOODS = {"bernoulli": "bernoulli-clipped", "logistic": "logistic-paper"}


def listed(names: Iterable[str]) -> str:
    """Returns names for a help text."""
    return ", ".join(names)


def setting(
    default: Any,
    help: str,
    *,
    of: str = "training",
    metavar: str = "NAME",
    choices: Iterable[str] = (),
    least: float | None = None,
    most: float | None = None,
    unset: str | None = None,
    option: bool = True,
) -> Any:
    """Returns a field of `TrainConfig` or `Estimation`.

    Args:
      default: its default value.
      help: its description in `--help`.
      of: what takes it: "data", "model" or "training" for training; the estimator or the proposal for an
        estimate.
      metavar: the name of its value in `--help`.
      choices: the values that it may have, besides None.
      least, most: the bounds of a number.
      unset: the meaning of None, for `--help`.
      option: whether the command line has an option for it; rarely changed settings can only be set in a
        TOML file.
    """
    known = {
        "help": help,
        "of": of,
        "metavar": metavar,
        "choices": tuple(choices),
        "least": least,
        "most": most,
        "option": option,
    }
    return dataclasses.field(default=default, metadata={**known, "unset": unset})


def prior_kind(prior: str, flow_base: str) -> PriorKind:
    """Returns the properties of a prior, or of the base that it transforms."""
    kind = PRIORS[prior]
    return PRIORS[flow_base]._replace(over_another=True) if kind.over_another else kind


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of `tfvamp train`; `tfvamp train --help` describes each of them.

    None means the default of the data set (`tfvamp.datasets.CATALOG`) or of the model.

    Raises:
      UsageError: a value has the wrong type, is outside its bounds, or is not among its choices.

    >>> TrainConfig(prior="mog", components=50).epochs
    2000
    """

    dataset: str = setting(
        "mnist5k",
        f"Data set: {listed(CATALOG)} (caltech101 means the 28x28 silhouettes); or your own images: npz:FILE, "
        "folder:DIR, tfds:NAME[/CONFIG][:IMAGE_KEY].",
    )
    image_size: str | None = setting(
        None, "Size to which your own images are resized; needed for folder:.", of="data", metavar="HxW"
    )
    grayscale: bool = setting(False, "Convert your own images to grey.", of="data")
    colour: bool = setting(False, "Read a folder's images in colour, even if all are grey.", of="data")
    background: str = setting(
        "white",
        f"Background of a folder's transparent images: {listed(BACKGROUNDS)}.",
        choices=BACKGROUNDS,
        of="data",
    )
    binarize: str | None = setting(
        None,
        f"How your own images are binarised: {listed(BINARIZATIONS)}.",
        of="data",
        metavar="HOW",
        choices=BINARIZATIONS,
        unset="none",
    )
    model: str = setting("vae", f"Model: {listed(MODELS)}.", choices=MODELS)
    latent_dims: int = setting(
        40, "Number of latent dimensions of each stochastic layer.", metavar="D", least=1, of="model"
    )
    hidden_units: int = setting(300, "Width of the hidden layers.", metavar="N", least=1, of="model")
    layers: int | None = setting(
        None,
        "Number of stochastic layers; the model hvae takes 2 to 8.",
        metavar="L",
        least=1,
        most=8,
        unset="the model's",
        of="model",
    )
    shared_levels: bool = setting(
        False, "Let the stochastic layers below the top one share their networks.", of="model", option=False
    )
    level_prior: str = setting(
        "normal",
        "Prior of the stochastic layers below the top one: normal, or vamp (their posterior at a pseudo-input computed from the layer above).",
        choices=LEVEL_PRIORS,
        of="model",
        option=False,
    )
    decoder_layers: int = setting(
        2, "Number of hidden layers of the decoder.", metavar="N", least=0, most=8, of="model", option=False
    )
    decoder_units: int | None = setting(
        None,
        "Width of the hidden layers of the decoder.",
        metavar="N",
        least=1,
        unset="hidden_units",
        of="model",
        option=False,
    )
    prior: str = setting("vamp", f"Prior: {listed(PRIORS)}.", choices=PRIORS, of="model")
    components: int | None = setting(
        None,
        "Number of components of a mixture prior.",
        metavar="K",
        least=1,
        unset="the data set's",
        of="model",
    )
    components_per_step: int | None = setting(
        None,
        "Number of components of the prior, chosen at random, that a training step uses; for K of many thousands.",
        metavar="M",
        least=1,
        unset="all",
        of="model",
    )
    neighbours_per_step: int | None = setting(
        None,
        "Number of nearest other exemplars of each image that a training step uses with the prior exemplar.",
        metavar="M",
        least=1,
        unset="all exemplars",
        of="model",
        option=False,
    )
    flow_base: str = setting(
        "standard",
        f"Prior that the prior flow transforms: {listed(FLOW_BASES)}.",
        choices=FLOW_BASES,
        of="model",
    )
    flow_couplings: int = setting(
        6,
        "Number of couplings of a flow.",
        metavar="N",
        least=1,
        most=1000,
        of="model",
        option=False,
    )
    flow_units: int = setting(
        128,
        "Width of the hidden layers of a flow.",
        metavar="H",
        least=1,
        of="model",
        option=False,
    )
    flow_transform: str = setting(
        "affine",
        f"Function of the couplings of a flow: {listed(FLOW_TRANSFORMS)}.",
        choices=FLOW_TRANSFORMS,
        of="model",
        option=False,
    )
    pseudo_input_init: str = setting(
        "normal",
        "Initial pseudo-inputs: normal (the data set's mean and deviation), or images (random training images "
        "plus noise).",
        choices=PSEUDO_INPUT_INITS,
    )
    likelihood: str | None = setting(
        None,
        f"Likelihood: {listed(LIKELIHOODS)}, or paper: the form of the paper's code that fits the data.",
        choices=(*LIKELIHOODS, "paper"),
        unset="the data set's",
        of="model",
    )
    epochs: int = setting(2000, "Maximum number of epochs.", metavar="N", least=1)
    batch_size: int = setting(100, "Number of images per step.", metavar="B", least=1)
    learning_rate: float | None = setting(
        None, "Learning rate of the optimiser.", metavar="R", unset="the data set's"
    )
    prior_learning_rate: float | None = setting(
        None,
        "Learning rate of the prior's own variables: pseudo-inputs, weights, variances, flows.",
        metavar="R",
        unset="learning_rate",
        option=False,
    )
    optimizer: str = setting(
        "normalized-adam",
        "Optimiser: normalized-adam (the paper's: Adam on normalised gradients), or one of Keras's by name: "
        f"{listed(OPTIMIZERS[1:])}.",
        choices=OPTIMIZERS,
    )
    optimizer_arguments: dict | None = setting(  # noqa: RUF009 (a field, as all of them)
        None, "Further arguments of the optimiser, such as {beta_1 = 0.8}.", option=False, unset="its own"
    )
    schedule: str = setting(
        "constant",
        f"Learning rate over the epochs: {listed(SCHEDULES)} (plateau: smaller when the validation bound stops rising).",
        choices=SCHEDULES,
    )
    schedule_epochs: int | None = setting(
        None,
        "Number of epochs over which a cosine schedule falls.",
        least=1,
        option=False,
        unset="the maximum number of epochs",
    )
    schedule_floor: float = setting(
        0.01,
        "Smallest learning rate of a schedule, as a share of the first.",
        least=0.0,
        most=1.0,
        option=False,
    )
    plateau_factor: float = setting(
        0.5,
        "Factor by which the learning rate is multiplied after a plateau.",
        least=0.0,
        most=1.0,
        option=False,
    )
    plateau_patience: int = setting(
        10, "Number of epochs without a better validation bound that make a plateau.", least=1, option=False
    )
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay: each step reduces the matrices of a network by this share times the learning rate.",
        metavar="W",
        least=0.0,
        most=1e6,
    )
    weight_decay_of: str = setting(
        "decoder", f"Networks whose weights decay: {listed(DECAYED)}.", choices=DECAYED, option=False
    )
    average: float = setting(
        0.0,
        "Average the weights over the steps with this momentum, such as 0.999; validation, the best weights, evaluation "
        "and export use the averages (0: none).",
        metavar="M",
        least=0.0,
        most=1.0,
    )
    input_dropout: float = setting(
        0.0,
        "Share of the encoder's input pixels that are set to 0 in training (the others are scaled up); the decoder "
        "still explains the whole image.",
        metavar="P",
        least=0.0,
        most=0.99,
        of="model",
    )
    warmup: int = setting(
        100, "Number of epochs over which the weight of the KL rises.", metavar="N", least=0
    )
    beta: float = setting(
        1.0,
        "Weight of the KL after the warm-up, in training and for the best epoch (a beta-VAE unless 1).",
        metavar="B",
        least=0.0,
        most=1e6,
    )
    patience: int = setting(
        50, "Stop after this many epochs without a better validation bound.", metavar="N", least=0
    )
    stop_by: str = setting(
        "elbo",
        f"Validation bound that chooses the best epoch: {listed(STOP_BY)} (importance-weighted).",
        choices=STOP_BY,
    )
    validation_samples: int = setting(
        1, "Number of samples per image in the validation.", metavar="S", least=1, most=10_000
    )
    objective: str = setting(
        "elbo", f"Bound to maximise: {listed(OBJECTIVES)}.", choices=OBJECTIVES, of="model"
    )
    num_samples: int = setting(
        1, "Number of samples outside the logarithm.", metavar="L", least=1, of="model"
    )
    importance_samples: int | None = setting(
        None,
        "Number of samples inside the logarithm, for iwae.",
        metavar="S",
        least=1,
        unset=str(IMPORTANCE_SAMPLES),
        of="model",
    )
    elbo_epochs: int = setting(
        0, "Number of epochs that maximise the ELBO before iwae.", metavar="N", least=0
    )
    dreg: bool = setting(
        False, "Use the doubly reparameterised gradient, for iwae; not for pixelhvae.", of="model"
    )
    step_memory: float = setting(
        4.0,
        "Memory for the activations of a step, in GiB; if the samples need more, a step computes the batch in parts.",
        least=2**-10,
        most=2**20,
        option=False,
    )
    on_nan: str = setting(
        "stop",
        "What to do if the loss or gradient of a step is NaN or infinite: stop, or skip (skip the step and continue).",
        choices=ON_NAN,
        metavar="stop|skip",
    )
    checkpoint_minutes: float = setting(
        5.0,
        "Save the state of training also within an epoch, if the last saved state is older than M minutes (0: only "
        "after whole epochs).",
        metavar="M",
        least=0.0,
        most=1e6,
    )
    seed: int = setting(
        0,
        "Random seed for weights, noise, data order and binarisation.",
        metavar="N",
        least=0,
        most=LARGEST_SEED,
        of="model",
    )
    limit: int | None = setting(
        None,
        "Use at most N images of each split, for a quick look.",
        metavar="N",
        least=1,
        unset="all",
    )
    jit: bool | None = setting(None, "Compile with XLA, or without it.", unset="whichever is faster")
    deterministic: bool = setting(
        False, "Use only deterministic operations: slower, but equal bit for bit on a GPU, too."
    )
    mixed_precision: bool = setting(
        False, "Compute layers in float16 and densities in float32 (mixed_float16), for GPUs."
    )
    device: str | None = setting(
        None, "Device: cpu, gpu, or gpu:1 and so on.", unset="the first GPU, else the CPU"
    )
    strategy: str = setting(
        "one",
        "Devices that share each batch: one; mirrored (all GPUs of this machine); multiworker (the machines in TF_CONFIG); "
        "or auto (whatever is available).",
        choices=STRATEGIES,
    )
    data_dir: str | None = setting(None, "Folder of prepared data.", metavar="DIR", unset="TFDS's")
    raw_dir: str | None = setting(
        None,
        "Folder with source files that you fetched, used instead of a download.",
        metavar="DIR",
        unset="the environment variable TFVAMP_RAW_DIR",
    )

    def __post_init__(self):
        check_fields(self)
        height_and_width(self.image_size)
        if not self.dataset.startswith(OWN):
            check_dataset(self.dataset)
        if self.device is not None and not re.fullmatch(r"cpu|gpu(:\d{1,3})?", self.device):
            raise UsageError(f"device must be cpu, gpu, or gpu:1 and so on; got {self.device!r}")
        for name in ("learning_rate", "prior_learning_rate"):
            if (rate := getattr(self, name)) is not None and not 0.0 < rate < float("inf"):
                raise UsageError(f"{name} must be a positive number; got {rate}")
        if self.objective == "elbo" and (self.importance_samples not in (None, 1) or self.dreg):
            raise UsageError(
                "importance_samples and dreg (the doubly reparameterised gradient) go with the objective iwae, not "
                "with elbo"
            )

        if self.device is not None and self.strategy != "one":
            raise UsageError(f"device goes with the strategy one, not with {self.strategy}")
        if self.on_nan == "skip" and self.mixed_precision:
            raise UsageError(
                "on_nan skip goes without mixed_precision, which leaves out such steps by itself"
            )
        for name, value in (self.optimizer_arguments or {}).items():
            if not isinstance(name, str) or not isinstance(value, (bool, int, float, str)):
                raise UsageError(
                    "optimizer_arguments must be a flat table of numbers, texts, true and false; got "
                    f"{str(name)[:40]} = {type(value).__name__!s}"
                )
        if self.average >= 1.0:
            raise UsageError(f"average must be below 1; got {self.average}")
        if self.prior_kind.pseudo_inputs == "exemplars" and self.components_per_step == 1:
            raise UsageError(
                f"components_per_step must be at least 2 with the prior {self.prior}, which leaves an image's own out"
            )
        if self.neighbours_per_step is not None and self.components_per_step is not None:
            raise UsageError("neighbours_per_step goes without components_per_step")
        if self.stop_by == "iwae" and self.beta != 1.0:
            raise UsageError("stop_by iwae goes with beta 1")

    @property
    def mixture(self) -> bool:
        """Whether the prior, or its base, has a number of components."""
        return self.prior_kind.mixture

    @property
    def prior_kind(self) -> PriorKind:
        """The properties of the prior, or of its base."""
        return prior_kind(self.prior, self.flow_base)

    def without_effect(self) -> list[str]:
        """Returns the settings that were changed but have no effect, each with the reason."""
        found, kind = [], self.prior_kind
        if self.components is not None and not kind.mixture:
            found.append(f"components: the prior {self.prior} is no mixture")
        if self.pseudo_input_init != TrainConfig.pseudo_input_init and kind.pseudo_inputs != "learned":
            found.append(f"pseudo_input_init: the prior {self.prior} has no pseudo-inputs that are learned")
        if self.components_per_step is not None and not kind.mixture:
            found.append(f"components_per_step: the prior {self.prior} is no mixture")
        if self.neighbours_per_step is not None and kind.pseudo_inputs != "exemplars":
            found.append(f"neighbours_per_step: the prior {self.prior} has no exemplars")
        fixed = not kind.over_another and (not kind.mixture or kind.pseudo_inputs == "images")
        if self.prior_learning_rate is not None and fixed:
            found.append(f"prior_learning_rate: the prior {self.prior} has no variables of its own")
        if self.objective == "elbo" and self.elbo_epochs:
            found.append("elbo_epochs: the objective is the ELBO in all epochs")
        if self.stop_by == "iwae" and self.validation_samples == 1:
            found.append(
                "stop_by: with one sample in the validation the importance-weighted bound is the ELBO"
            )
        needs = {
            "schedule_epochs": ("the schedule is not cosine", self.schedule == "cosine"),
            "schedule_floor": ("the learning rate is constant", self.schedule != "constant"),
            "plateau_factor": ("the schedule is not plateau", self.schedule == "plateau"),
            "plateau_patience": ("the schedule is not plateau", self.schedule == "plateau"),
            "weight_decay_of": ("no weights decay", self.weight_decay > 0.0),
            "decoder_units": ("the decoder has no hidden layers", self.decoder_layers > 0),
            "shared_levels": (
                "there is at most one layer below the top one",
                self.layers is not None and self.layers > 2,
            ),
            **{
                name: ("the prior is no flow", kind.over_another)
                for name in names_of("model")
                if name.startswith("flow_")
            },
        }
        for name, (reason, effect) in needs.items():
            if getattr(self, name) != getattr(TrainConfig, name) and not effect:
                found.append(f"{name}: {reason}")
        return found

    def resolve(self, spec: DatasetSpec) -> TrainConfig:
        """Returns the same settings with the data set's defaults in place of None.

        Raises:
          UsageError: the likelihood does not fit the data.
        """
        defaults: dict[str, Any] = {"learning_rate": spec.learning_rate, "likelihood": spec.likelihood}
        if self.prior_kind.pseudo_inputs == "exemplars":
            defaults["components"] = count = min(spec.sizes[0], self.limit or spec.sizes[0])
            if self.components not in (None, count):
                raise UsageError(
                    f"a prior of exemplars has a component for each of the {count} training images: leave components out"
                )
        elif self.mixture:
            defaults["components"] = spec.num_components
        if self.objective == "iwae":
            defaults["importance_samples"] = IMPORTANCE_SAMPLES
        if self.schedule == "cosine":  # a later change of `epochs` leaves it as it is
            defaults["schedule_epochs"] = self.epochs
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
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
        """Returns the settings that `datasets.load` takes besides the name, the folders and the limit."""
        return {name: getattr(self, name) for name in names_of("data")}

    def modelling(self) -> dict[str, Any]:
        """Returns the settings that a model takes, except those that are None."""
        values = {name: getattr(self, name) for name in names_of("model")}
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Returns a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    def to_toml(self, resolved: TrainConfig | None = None) -> str:
        """Returns the settings as TOML that `from_toml` reads; settings that are None become comments.

        Args:
          resolved: the same settings with the data set's defaults, which the comments show.
        """
        lines = ["# tfvamp train --config FILE"]
        for field, _ in fields():
            value, text = getattr(self, field.name), field.metadata["help"]
            line = toml_line(field.name, value)
            if value is None:
                default = getattr(resolved, field.name, None)
                shown = field.metadata["unset"] if default is None else f"{_toml(default)} by default"
                line = f"# {field.name} = " + (f"  # {shown}" if shown else "")
            lines += ["", f"# {text}", line.rstrip()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Returns the inverse of `to_dict`.

        Raises:
          UsageError: there is an unknown key (the message suggests the nearest one), or a value that the
            setting cannot have.
        """
        for name in settings:
            check_choice("setting", name, [field.name for field, _ in fields()])
        return cls(**settings)

    @classmethod
    def from_preset(cls, preset: str | None, **settings: Any) -> TrainConfig:
        """Returns settings on top of a preset of `PRESETS` (None: no preset)."""
        if preset is not None:
            check_choice("preset", preset, PRESETS)
            settings = {**PRESETS[preset], **settings}
        return cls.from_dict(settings)


@dataclasses.dataclass(frozen=True)
class Estimation:
    """The settings of an estimate of log p(x); `tfvamp evaluate --help` describes each of them.

    Raises:
      UsageError: a value has the wrong type, is outside its bounds, or is not among its choices.

    >>> Estimation(proposal="refined").refine_steps
    300
    """

    samples: int = setting(
        5000, "Number of importance samples per image.", of="importance", metavar="S", least=1
    )
    estimator: str = setting(
        "importance",
        f"Estimator: {listed(ESTIMATORS)}. importance: importance sampling. ais: annealed importance sampling, slower "
        "and closer to the truth. bdmc: bounds from both sides, on images that the model generates.",
        of="all",
        choices=ESTIMATORS,
    )
    proposal: str | None = setting(
        None,
        f"Where samples and chains start: {listed(PROPOSALS)}. Refined proposals are fitted to each image by gradient "
        "steps; the encoder's estimate is shown beside theirs.",
        of="all",
        choices=PROPOSALS,
        unset="refined for importance sampling from models without convolutions, else encoder",
    )
    refine_steps: int = setting(
        300, "Number of gradient steps that refine a proposal.", of="refined", metavar="N", least=1
    )
    refine_step_size: float = setting(
        0.01, "Step size of Adam in the refinement.", of="refined", metavar="RATE"
    )
    refine_samples: int = setting(
        4, "Number of latents per image and gradient step.", of="refined", metavar="N", least=1, most=2500
    )
    chains: int = setting(16, "Number of chains per image.", of="ais", metavar="M", least=1, most=1000)
    steps: int = setting(
        1000, "Number of temperatures per chain.", of="ais", metavar="T", least=1, most=10**6
    )
    leapfrogs: int = setting(
        10, "Number of leapfrog steps at each temperature.", of="ais", metavar="L", least=1, most=1000
    )
    max_memory: float = setting(
        2.0,
        "Memory for what is computed at a time, in GiB, in addition to TensorFlow's own.",
        of="all",
        metavar="GIB",
        least=2**-6,
        most=2**20,
    )

    def __post_init__(self):
        check_fields(self)
        if not 0.0 < self.refine_step_size < float("inf"):
            raise UsageError(f"refine_step_size must be a positive number; got {self.refine_step_size}")
        if self.proposal == "prior" and self.estimator == "importance":
            raise UsageError(
                "the proposal prior goes with the estimators ais and bdmc: of plain samples from it, none count"
            )

    @property
    def max_bytes(self) -> float:
        """`max_memory` in bytes."""
        return self.max_memory * 2**30

    def resolve(self, convolutional: bool) -> Estimation:
        """Returns the same settings with a proposal: refined, unless chains are run or the model makes it slow."""
        affordable = self.estimator == "importance" and not convolutional
        chosen = self.proposal or ("refined" if affordable else "encoder")
        return dataclasses.replace(self, proposal=chosen)

    def check_effect(self, names: Iterable[str], options: bool = False) -> None:
        """Raises UsageError for the first of some settings that has no effect, named as an option if `options`."""

        def called(name: str) -> str:
            return f"--{name.replace('_', '-')}" if options else name

        refined = self.proposal == "refined" or (self.proposal is None and self.estimator == "importance")
        goes_with = {
            "importance": ("estimator", "importance or ais", self.estimator != "bdmc"),
            "ais": ("estimator", "ais or bdmc", self.estimator != "importance"),
            "refined": ("proposal", "refined", refined),
        }
        of = {field.name: field.metadata["of"] for field, _ in fields(Estimation)}
        for name in names:
            if of[name] in goes_with:
                other, values, effect = goes_with[of[name]]
                if not effect:
                    raise UsageError(f"{called(name)} goes with {called(other)} {values}")


def from_toml(path: str | pathlib.Path, others: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the settings in a TOML file, a flat table of `name = value`.

    Args:
      path: the file; `~` is the home folder.
      others: names that the file may have besides those of settings.

    Raises:
      FileError: the file cannot be read.
      UsageError: the file is not TOML, or has an unknown key (the message suggests the nearest one).
    """
    path = expanded(path)
    try:
        document = tomllib.loads(read_bytes(path, LARGEST_TOML).decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown(path)} is not TOML: {' '.join(str(error).split())}") from error
    for name in document:
        try:
            check_choice("setting", name, [*(field.name for field, _ in fields()), *others])
        except UsageError as error:
            raise UsageError(f"{shown(path)}: {error}") from error
    return document


def check_dataset(name: str) -> None:
    """Raises UsageError unless a name is in the catalogue; for a path, the message names the missing prefix."""
    if name not in CATALOG and re.search(r"[/.~]", name):
        kind, shortened = "npz" if name.endswith(".npz") else "folder", printable(name)[:100]
        raise UsageError(f"unknown data set {shortened!r}: for your own images say {kind}:{shortened}")
    check_choice("data set", name, CATALOG)


def height_and_width(image_size: str | None) -> tuple[int, int] | None:
    """Returns (H, W) for "HxW"; None for None.

    Raises:
      UsageError: it is not of this form.

    >>> height_and_width("64x48")
    (64, 48)
    """
    if image_size is None:
        return None
    match = re.fullmatch(r"(\d{1,4})[xX](\d{1,4})", image_size) if isinstance(image_size, str) else None
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UsageError(f"--image-size must be HxW, such as 64x64; got {image_size!r}")
    return int(match[1]), int(match[2])


def fields(settings: type = TrainConfig) -> list[tuple[dataclasses.Field, Any]]:
    """Returns the fields of `TrainConfig`, or of other settings, with their types."""
    hints = _hints(settings)
    return [(field, hints[field.name]) for field in dataclasses.fields(settings)]


@functools.cache
def _hints(settings: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(settings)


def check_fields(settings: Any) -> None:
    """Raises UsageError for a value that has the wrong type, is outside its bounds, or not among its choices."""
    for field, hint in fields(type(settings)):
        value, bounds = getattr(settings, field.name), field.metadata
        if not _has_type(value, hint):
            raise UsageError(f"{field.name} must be of type {_type_name(hint)}; got {value!r}")
        if value is None or isinstance(value, bool):
            continue
        if bounds["choices"]:
            check_choice(field.name.replace("_", " "), value, bounds["choices"])
        if bounds["least"] is not None and not value >= bounds["least"]:  # nor is NaN
            raise UsageError(f"{field.name} must be at least {bounds['least']}; got {value}")
        most = LARGEST_NUMBER if bounds["most"] is None else bounds["most"]
        if (isinstance(value, int) or bounds["most"] is not None) and value > most:
            raise UsageError(f"{field.name} must be at most {most}; got {str(value)[:20]}")


def names_of(what: str) -> list[str]:
    """Returns the names of the settings that the data set, the model or the training loop takes."""
    return [field.name for field, _ in fields() if field.metadata["of"] == what]


def has_option(name: str) -> bool:
    """Returns whether the command line has an option for a setting of training."""
    return next(field for field, _ in fields() if field.name == name).metadata["option"]


def allowed_types(hint: Any) -> tuple[type, ...]:
    """Returns the types of a hint such as `int | None`."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _has_type(value: Any, hint: Any) -> bool:
    allowed = allowed_types(hint)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) or (isinstance(value, int) and float in allowed)


def _type_name(hint: Any) -> str:
    return str(hint) if isinstance(hint, types.UnionType) else hint.__name__


def toml_line(name: str, value: Any) -> str:
    """Returns `name = value` in TOML."""
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """Returns a bool, number, text or table in TOML, with texts as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
