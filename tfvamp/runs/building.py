"""Building the model of a run from its settings, and the memory that the model needs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state  # no public way to forget variables that were never made

from tfvamp import memory, seeds
from tfvamp.blocks import CONV_LAYERS, DENSE_LAYERS
from tfvamp.config import TrainConfig, has_option, height_and_width
from tfvamp.datasets import Dataset, DatasetSpec
from tfvamp.errors import UsageError
from tfvamp.layers.pseudo_inputs import LOADED_LATER
from tfvamp.models import MODELS, LatentVariableModel
from tfvamp.models.choices import PseudoInputs
from tfvamp.models.objective import Objective

IMAGE_NOISE = 0.01  # the paper's code adds N(0, 0.01^2) to images taken as pseudo-inputs
STATE = 4  # arrays per weight in training: the weight, its gradient, and Adam's two moments
UNINITIALIZED = "uninitialized_variables"


def resolve(config: TrainConfig, spec: DatasetSpec) -> TrainConfig:
    """Returns the settings, with None replaced by the defaults of the data set and of the model.

    Raises:
      UsageError: the likelihood does not fit the data, or the objective does not fit the model.
    """
    check_fit(config)
    resolved = config.resolve(spec)
    jit = MODELS[config.model].faster_with_xla if config.jit is None else config.jit
    return dataclasses.replace(resolved, jit=jit)


def check_fit(config: TrainConfig) -> None:
    """Raises UsageError if the model does not support the objective or the number of layers."""
    model = MODELS[config.model]
    model.check_objective(_objective(config))
    model.check_sizes(
        config.layers, config.shared_levels, config.decoder_layers, config.decoder_units, config.level_prior
    )


def _objective(config: TrainConfig) -> Objective:
    return Objective(config.objective, config.num_samples, config.importance_samples, config.dreg)


def model_of(config: TrainConfig, event_shape: Sequence[int], pseudo_inputs: PseudoInputs = None):
    """Returns the untrained model that resolved settings describe."""
    return _made(config.model, config.mixed_precision, config.modelling(), event_shape, pseudo_inputs)


def _made(
    model: str,
    mixed: bool,
    modelling: dict[str, Any],
    event_shape: Sequence[int],
    pseudo_inputs: PseudoInputs,
):
    with _precision(mixed):
        return MODELS[model](event_shape=event_shape, pseudo_inputs=pseudo_inputs, name=model, **modelling)


def untrained(config: TrainConfig, dataset: Dataset) -> LatentVariableModel:
    """Returns the model of a run before training, with the initial weights that its seed gives.

    Sets the global seeds of Python, NumPy and TensorFlow, from which Keras draws initial weights.
    """
    keras.utils.set_random_seed(config.seed)
    return model_of(config, dataset.spec.shape, _initial_pseudo_inputs(config, dataset))


def weight_shapes(config: TrainConfig, event_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight of a run's model by its path, without allocating memory for the weights."""
    modelling = tuple(config.modelling().items())
    return dict(_weight_shapes(config.model, config.mixed_precision, modelling, tuple(event_shape)))


@functools.lru_cache(maxsize=32)
def _weight_shapes(
    model: str, mixed: bool, modelling: tuple[tuple[str, Any], ...], event_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Returns the result of `weight_shapes`; a model is made only once, however often its shapes are asked for."""
    before = list(global_state.get_global_attribute(UNINITIALIZED) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            made = _made(model, mixed, dict(modelling), event_shape, LOADED_LATER)
        return {weight.path: tuple(weight.shape) for weight in made.weights}
    finally:
        global_state.set_global_attribute(UNINITIALIZED, before)


def num_values(shapes: dict[str, tuple[int, ...]]) -> int:
    """Returns the number of values in weights of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def known_shape(config: TrainConfig) -> tuple[int, int, int] | None:
    """Returns the shape of your own images if the settings tell it before the images are read; None otherwise."""
    size = height_and_width(config.image_size)
    return None if size is None else (*size, 3 if config.colour else 1)  # at least


def check_memory(config: TrainConfig, event_shape: Sequence[int], num_examples: int) -> int:
    """Returns the memory in bytes that training needs, estimated before any is allocated.

    Raises:
      UsageError: the machine has less; the message names the setting that needs the most.
    """
    shapes = weight_shapes(config, event_shape)
    state = 4.0 * STATE * num_values(shapes)
    advice = "choose smaller settings"
    for setting, unit in (
        ("components", 1), ("hidden_units", 2), ("latent_dims", 1), ("decoder_units", 2), ("flow_units", 1)
    ):  # fmt: skip
        value = getattr(config, setting)
        if value is not None and value > 10_000 * unit:
            called = f"--{setting.replace('_', '-')}" if has_option(setting) else setting
            advice = f"choose a smaller {called} than {value}"
    largest = max(shapes, key=lambda name: math.prod(shapes[name]))
    memory.check(
        state, f"the weights of this model ({largest} has {list(shapes[largest])}) and its optimiser", advice
    )
    draws = _objective(config).num_draws
    images = min(config.batch_size, num_examples)
    at_a_time = images_at_a_time(config, event_shape) or images
    activations = _bytes_per_image(config, event_shape) * (
        min(images, at_a_time) * draws + _encoded_pseudo_inputs(config)
    )
    mixture = 3.0 * 8 * min(images, at_a_time) * draws * max(_in_a_step(config), 1)
    memory.check(
        state + activations + mixture,
        f"a step of {images} images, {draws} latents each, with {config.components or 1} components",
        "choose a smaller --batch-size, --components, or number of samples",
    )
    return int(state + activations + mixture)


def images_at_a_time(config: TrainConfig, event_shape: Sequence[int]) -> int | None:
    """Returns the number of images whose gradients a step computes at a time; None for the whole batch."""
    if MODELS[config.model].couples_images:
        return None
    per_image = _bytes_per_image(config, event_shape) * _objective(config).num_draws
    at_a_time = max(1, int(config.step_memory * 2**30 / per_image))
    return at_a_time if at_a_time < config.batch_size else None


def check_pseudo_inputs(config: TrainConfig, num_examples: int) -> None:
    """Raises UsageError if more pseudo-inputs or neighbours are taken from images than there are images."""
    near = config.neighbours_per_step or 0
    if config.prior_kind.pseudo_inputs == "exemplars" and num_examples < 2:
        raise UsageError(
            f"the prior {config.prior} leaves each training image's own component out, and needs two images: choose a "
            "larger --limit"
        )
    if config.prior_kind.pseudo_inputs == "exemplars" and near >= num_examples:
        raise UsageError(
            f"{near} neighbours of each image cannot be found among {num_examples} training images: "
            f"choose neighbours_per_step below {num_examples}"
        )
    if _takes_images(config) and config.components is not None and config.components > num_examples:
        raise UsageError(
            f"K = {config.components} pseudo-inputs cannot be taken from {num_examples} training images: "
            f"choose --components {num_examples} or fewer"
        )


def _encoded_pseudo_inputs(config: TrainConfig) -> int:
    return _in_a_step(config) if config.prior_kind.pseudo_inputs else 0


def _in_a_step(config: TrainConfig) -> int:
    """Returns the number of components of the prior that a training step uses."""
    if config.neighbours_per_step is not None:
        return config.batch_size * config.neighbours_per_step
    return min(config.components or 0, config.components_per_step or config.components or 0)


def _bytes_per_image(config: TrainConfig, event_shape: Sequence[int]) -> float:
    """Returns the approximate number of bytes that one image takes in a step, with what is kept for the gradient."""
    features = MODELS[config.model].features_per_pixel
    maps = CONV_LAYERS * features * math.prod(event_shape[:2]) if features > 1 else 0
    usual = MODELS[config.model].layer_counts[0]
    layers = (config.layers or usual) / usual
    decoder = (layers + config.decoder_layers) * (config.decoder_units or config.hidden_units)
    flow = 3 * config.flow_couplings * config.flow_units if config.prior_kind.over_another else 0
    hidden = DENSE_LAYERS * config.hidden_units * layers
    return 4.0 * (maps + hidden + decoder + flow + 8 * math.prod(event_shape))


def _takes_images(config: TrainConfig) -> bool:
    kind = config.prior_kind.pseudo_inputs
    return kind in ("images", "exemplars") or (kind == "learned" and config.pseudo_input_init == "images")


def _initial_pseudo_inputs(config: TrainConfig, dataset: Dataset) -> PseudoInputs:
    """Returns an array or an initializer for a prior with pseudo-inputs; None for other priors."""
    kind, spec = config.prior_kind.pseudo_inputs, dataset.spec
    if kind is None:
        return None
    if not _takes_images(config):
        normal = keras.initializers.RandomNormal(spec.pseudo_input_mean, spec.pseudo_input_std)
        return lambda shape, dtype=None: tf.clip_by_value(normal(shape, dtype), 0.0, 1.0)  # for a gradient
    count = dataset.train.num_examples
    check_pseudo_inputs(config, count)
    if kind == "exemplars":
        return dataset.train.array()[0]
    rng = np.random.default_rng(seeds.stateless(config.seed, "pseudo-inputs").numpy())
    chosen = dataset.train.at(tf.constant(rng.choice(count, config.components, replace=False))).numpy()
    if kind == "images":
        return chosen
    noise = rng.normal(0.0, IMAGE_NOISE, chosen.shape).astype(np.float32)
    return np.clip(chosen + noise, 0.0, 1.0)  # otherwise half the black pixels would get no gradient


@contextlib.contextmanager
def _precision(mixed: bool) -> Iterator[None]:
    """Makes layers that are created within it compute in float16 if `mixed`."""
    before = keras.config.dtype_policy()
    if mixed:
        keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
