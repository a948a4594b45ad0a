"""The training and validation steps that the settings of a run describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tfvamp.blocks import images_at_once, rows_of
from tfvamp.config import TrainConfig
from tfvamp.graph import compiled
from tfvamp.models import LatentVariableModel
from tfvamp.models.objective import Objective
from tfvamp.optimizers import optimizer_of, start_averages
from tfvamp.runs import building
from tfvamp.training import replicas
from tfvamp.training.strategies import Agreement, Devices
from tfvamp.training.stretches import Stretches, one_by_one, several


def compile_model(model: LatentVariableModel, config: TrainConfig) -> None:
    """Gives a model the optimiser and the options of its steps that the settings describe.

    Raises:
      UsageError: the optimiser does not take its arguments.
    """
    which = ("encoder", "decoder") if config.weight_decay_of == "both" else (config.weight_decay_of,)
    networks = [network for name in which for network in model.networks(name)]
    decayed = {id(one) for network in networks for one in network.trainable_variables if len(one.shape) > 1}
    spared = [one for one in model.trainable_variables if id(one) not in decayed]
    model.validate_by(config.validation_samples, config.stop_by == "iwae")
    model.compile(optimizer=optimizer_of(config, spared, model.variables_of_prior()))
    model.optimizer.build(model.trainable_variables)
    start_averages(model)
    model.skip_nonfinite = config.on_nan == "skip"
    model.images_at_a_time = building.images_at_a_time(config, model.event_shape)


def validated_at_once(model: LatentVariableModel, num_samples: int) -> int:
    """Returns how many images are validated at a time, with this number of samples per image."""
    rows = rows_of(model, model.event_shape) // num_samples
    return (
        min(images_at_once(model, model.event_shape), max(1, rows))
        if num_samples > 1
        else images_at_once(model, model.event_shape)
    )


class Steps(NamedTuple):
    """The compiled steps of a run: those of the first epochs, those of the other epochs, and the validation step."""

    elbo: Stretches
    train: Stretches
    test: Callable


def steps_of(
    model: LatentVariableModel,
    config: TrainConfig,
    where: Devices,
    agreement: Agreement,
    say: Callable[[str], None],
) -> Steps:
    """Returns the steps of a model on the devices that it was made for."""
    jit, first, others = bool(config.jit), Objective("elbo", config.num_samples), model.objective
    if (strategy := where.strategy) is not None:
        return Steps(
            one_by_one(replicas.train_step(strategy, model, jit, first, agreement)),
            one_by_one(replicas.train_step(strategy, model, jit, others, agreement)),
            replicas.test_step(strategy, model, jit, agreement),
        )

    def steps(objective: Objective) -> Stretches:
        def step(images):
            with model.maximising(objective):
                return model.train_step(images)

        if jit and not model.skip_nonfinite:  # the latter must be reported for each step
            return several(step, model.means(), say)
        return one_by_one(compiled(step, jit, say))

    return Steps(steps(first), steps(others), compiled(model.test_step, jit, say))
