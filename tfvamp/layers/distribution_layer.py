"""Distributions as values between Keras layers, in functional models too.

Keras 3 knows nested structures by optree, in its namespace "keras". A distribution class registered
there is taken apart into its tensors and put together again around them. Where Keras holds something
else in their places (a symbolic tensor while a functional model is put together, a list, a
shape), the distribution is hollow: it can be handed to a layer, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import optree
import tensorflow as tf
from tensorflow_probability import distributions as tfd

NAMESPACE = "keras"  # not part of Keras's interface: `DistributionLayer` tells when it works no more


class TravellingDistribution:
    """What a distribution class adds to travel between Keras layers, first among its bases.

    Subclasses say which tensors make them up, and are registered by `travels`.
    """

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Returns the tensors that make up the distribution."""
        raise NotImplementedError  # each subclass has its own

    @classmethod
    def from_tensors(cls, *tensors) -> tfd.Distribution:
        """Returns the distribution that such tensors make up."""
        raise NotImplementedError  # each subclass has its own

    def rebuilt(self, tensors: Sequence[tf.Tensor]) -> tfd.Distribution:
        """Returns the distribution of this kind that other tensors make up, as many and in the order of `tensors`."""
        return self.from_tensors(*tensors)

    def __len__(self):
        """Returns the number of tensors: Keras asks a nested argument of a layer for its length."""
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
        """Returns the config for the `.keras` file of a functional model, which names what its layers were called and built on.

        Raises:
          NotImplementedError: the distribution is an output of the model, whose place in the file
            Keras reads as a plain structure.
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
    """Registers a `TravellingDistribution` with Keras: its nested structures and its `.keras` files."""
    optree.register_pytree_node(
        cls,
        lambda distribution: (_parts(distribution), None),
        lambda _, parts: _assemble(cls, parts),
        namespace=NAMESPACE,
    )
    return keras.saving.register_keras_serializable(package="tfvamp")(cls)


class DistributionLayer(keras.layers.Layer):
    """A Keras layer whose `call` returns a distribution of tfvamp; base of encoders, decoders, likelihoods.

    It may be called on arrays, in a subclassed model, and on symbolic tensors in a functional one:
    there the next layer's `call` gets the distribution. `predict` of a model whose output is a
    distribution gives the distribution of all inputs.

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
