"""Distributions that pass between Keras layers as values, also in functional models.

Keras 3 handles nested structures with optree, in its namespace "keras". A distribution class that
is registered there is a pytree: optree takes it apart into its tensors and rebuilds it from them.
Where Keras puts something else in place of the tensors (a symbolic tensor while a functional model
is built, a list, a shape), the distribution is a placeholder: it can only be handed to a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import optree
import tensorflow as tf
from tensorflow_probability import distributions as tfd

NAMESPACE = "keras"  # not public in Keras: `DistributionLayer` raises an error if it stops working


class TravellingDistribution:
    """A mixin, first among the bases, with which a distribution can travel between Keras layers.

    Subclasses define which tensors make them up, and are registered by the decorator `travels`.
    """

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Returns the tensors that make up the distribution."""
        raise NotImplementedError  # each subclass has its own

    @classmethod
    def from_tensors(cls, *tensors) -> tfd.Distribution:
        """Returns the distribution that these tensors make up."""
        raise NotImplementedError  # each subclass has its own

    def rebuilt(self, tensors: Sequence[tf.Tensor]) -> tfd.Distribution:
        """Returns a distribution of the same kind from other tensors, as many and in the same order as `tensors()`."""
        return self.from_tensors(*tensors)

    def __len__(self):
        """Returns the number of tensors; Keras asks for the length of a nested argument of a layer."""
        return len(_parts(self))

    def __bool__(self):
        return True

    def __repr__(self):
        parts = self.__dict__.get("_parts")
        return super().__repr__() if parts is None else f"<symbolic {type(self).__name__} of {parts}>"

    __str__ = __repr__

    def __getattr__(self, name: str):
        if "_parts" in self.__dict__:
            raise AttributeError(
                f"a {type(self).__name__} in a functional model is only a placeholder for a layer's output: hand it to a "
                "layer, such as GaussianSample, or use its methods in the `call` of a layer of your own"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def get_config(self) -> dict[str, Any]:
        """Returns the config for the `.keras` file of a functional model.

        The file records the arguments that each layer was called with, and these may be
        distributions.

        Raises:
          NotImplementedError: the distribution is an output of the model; Keras reads the outputs
            in the file as a plain structure.
        """
        parts = list(_parts(self))
        if any(isinstance(part, list) for part in parts):  # [layer, node, tensor], as for outputs alone
            raise NotImplementedError(
                f"Keras cannot read back a functional model with a {type(self).__name__} among its outputs: let it "
                "end in a layer that gives tensors (the mean, a sample, a log-probability), or save its weights"
            )
        return {"parts": keras.saving.serialize_keras_object(parts)}

    @classmethod
    def from_config(cls, config):
        return _assemble(cls, keras.saving.deserialize_keras_object(config["parts"]))


def travels(cls):
    """Registers a `TravellingDistribution` with Keras, for nested structures and for `.keras` files."""
    optree.register_pytree_node(
        cls,
        lambda distribution: (_parts(distribution), None),
        lambda _, parts: _assemble(cls, parts),
        namespace=NAMESPACE,
    )
    return keras.saving.register_keras_serializable(package="tfvamp")(cls)


class DistributionLayer(keras.layers.Layer):
    """A Keras layer whose `call` returns a tfvamp distribution; the base of encoders, decoders, likelihoods.

    It can be called on arrays, as in a subclassed model, or on symbolic tensors in a functional
    model, where the next layer's `call` receives the distribution. If the output of a model is a
    distribution, `predict` returns the distribution for all inputs.

    >>> from tfvamp.layers import DiagonalGaussian
    >>> class Encoder(DistributionLayer):
    ...     def call(self, x):
    ...         return DiagonalGaussian(x, tf.zeros_like(x))
    >>> Encoder()(tf.zeros([3, 2])).batch_shape
    TensorShape([3])
    """

    travels = True  # whether its distribution is a `TravellingDistribution`

    def __call__(self, *args, **kwargs):
        try:
            return super().__call__(*args, **kwargs)
        except ValueError as error:
            if "outputs must be tensors" not in str(error):
                raise
            if not self.travels:
                raise NotImplementedError(
                    f"the distribution of {self.name!r} holds its network and cannot go through a functional model: "
                    "call the layer in the `call` of a layer or a model of your own"
                ) from error
            raise NotImplementedError(
                f"Keras {keras.__version__} does not let the distribution of {self.name!r} through a functional "
                "model as Keras 3.15 does: let your encoder return a pair [mean, log_variance], or subclass "
                "keras.Model"
            ) from error


def _parts(distribution) -> tuple:
    parts = distribution.__dict__.get("_parts")
    return distribution.tensors() if parts is None else parts


def _assemble(cls: type[TravellingDistribution], parts) -> tfd.Distribution:
    if all(isinstance(part, (tf.Tensor, np.ndarray)) for part in parts):
        return cls.from_tensors(*parts)
    hollow: Any = object.__new__(cls)
    hollow.__dict__["_parts"] = tuple(parts)
    return hollow
