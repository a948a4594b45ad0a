"""Optimisers: Adam on normalised gradients, as in the paper's code, and Keras's own by name."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvamp.config import OPTIMIZERS, TrainConfig
from tfvamp.errors import UsageError, check_choice


@keras.saving.register_keras_serializable(package="tfvamp")
class NormalizedAdam(keras.optimizers.Adam):
    """Adam on g / (|g| + 1e-7), where |g| is the L2 norm of one variable's whole gradient.

    It has the paper's epsilon of 1e-8 (Keras's default is 1e-7). The norm is taken in
    `update_step`, after replicas have summed their gradients.

    >>> float(NormalizedAdam(1e-4).epsilon)
    1e-08
    """

    def __init__(self, learning_rate=5e-4, epsilon: float = 1e-8, **kwargs):
        super().__init__(learning_rate=learning_rate, epsilon=epsilon, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)  # also one of some rows only
        gradient /= tf.sqrt(tf.reduce_sum(tf.square(gradient))) + 1e-7
        if self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        # One operation instead of about a dozen in Keras, each of which goes over all values.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=gradient,
        )


# Classes are found by their names, ignoring case.
KINDS = {"normalized-adam": NormalizedAdam} | {
    name.lower(): getattr(keras.optimizers, name)
    for name in dir(keras.optimizers)
    if name.lower() in OPTIMIZERS
}
# Refused, because training relies on the sum of the gradients and on the number of steps.
REFUSED = ("gradient_accumulation_steps", "loss_scale_factor")
OWN_SETTINGS = ("learning_rate", "weight_decay", "use_ema", "ema_momentum", "ema_overwrite_frequency", "name")


def optimizer_of(
    config: TrainConfig, spared: Sequence[Any] = (), own: Sequence[Any] = ()
) -> keras.optimizers.Optimizer:
    """Returns the optimiser that the settings describe, not yet built.

    Args:
      config: resolved settings.
      spared: variables that are excluded from weight decay.
      own: variables of the prior, for which some settings have a separate learning rate.

    Raises:
      UsageError: the optimiser does not take the arguments.
    """
    kind, arguments = KINDS[config.optimizer], dict(config.optimizer_arguments or {})
    known = _arguments(kind)
    for name in arguments:
        check_choice(f"argument of {config.optimizer}", name, sorted(set(known) - set(REFUSED)))
        if name in OWN_SETTINGS:
            raise UsageError(
                f"the optimiser's {name} has settings of its own: leave it out of optimizer_arguments"
            )
    decays = {name for name in known if name.endswith("weight_decay") and known[name] is not None}
    for name in decays | (
        {"weight_decay"} if config.weight_decay else set()
    ):  # AdamW and Muon decay by default
        arguments[name] = config.weight_decay
    if config.average:
        arguments |= {"use_ema": True, "ema_momentum": config.average}
    rate, of_prior = config.learning_rate, config.prior_learning_rate
    if rate is not None and of_prior is not None and own:
        kind = _with_two_rates(kind, own, of_prior / rate)
    try:
        optimizer = kind(learning_rate=rate, **arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"optimizer_arguments do not fit {config.optimizer}: {error}") from error
    if spared:
        optimizer.exclude_from_weight_decay(var_list=list(spared))
    return optimizer


def _with_two_rates(kind: type, own: Sequence[Any], ratio: float) -> type:
    """Returns an optimiser class that updates some of the variables with `ratio` times the learning rate."""
    paths = {variable.path for variable in own}

    class TwoRates(kind):
        def build(self, variables):
            super().build(variables)
            self._own = {index for index, variable in enumerate(variables) if variable.path in paths}

        def update_step(self, gradient, variable, learning_rate):
            if self._get_variable_index(variable) in self._own:
                learning_rate = learning_rate * ratio
            super().update_step(gradient, variable, learning_rate)

    TwoRates.__name__ = kind.__name__
    return TwoRates


def _arguments(kind: type) -> dict[str, Any]:
    """Returns the arguments that an optimiser class and its bases take, with their defaults."""
    found: dict[str, Any] = {}
    for one in reversed(kind.__mro__):
        for name, parameter in inspect.signature(vars(one).get("__init__", lambda: None)).parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name != "self":
                found[name] = parameter.default
    return found


def start_averages(model: keras.Model) -> None:
    """Starts the averages of a built optimiser from the model's weights; Keras does so only in the first step."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema:
        for average, variable in zip(
            optimizer._model_variables_moving_average, model.trainable_variables, strict=True
        ):
            average.assign(variable)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Gives a model the averages of its weights, if its optimiser keeps them; restores its own weights afterwards."""
    if not getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        yield
        return
    own = [variable.numpy() for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, own, strict=True):
            variable.assign(value)
