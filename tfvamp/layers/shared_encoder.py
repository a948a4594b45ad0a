"""The config of a prior layer that shares its model's encoder: a placeholder stands where the encoder was."""

from __future__ import annotations

import contextvars
from typing import Any

import keras

_encoder: contextvars.ContextVar[keras.layers.Layer] = contextvars.ContextVar("encoder")


@keras.saving.register_keras_serializable(package="tfvamp")
class EncoderOfModel:
    """The placeholder: while `from_config` reads the config of a prior, it becomes the model's encoder."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.Layer:
        try:
            return _encoder.get()
        except LookupError:
            raise ValueError(
                "the config of a prior that shares an encoder can only be read with its model"
            ) from None

    def get_config(self) -> dict[str, Any]:
        return {}


def config_of(prior: keras.layers.Layer, encoder: keras.layers.Layer) -> dict[str, Any]:
    """Returns the serialised prior, with a placeholder wherever it has the encoder.

    >>> from tfvamp.layers import GaussianPosterior, VampPriorLayer
    >>> encoder = keras.Sequential([keras.Input((6,)), GaussianPosterior(latent_dims=2)])
    >>> config = config_of(VampPriorLayer(encoder, num_components=3), encoder)
    >>> config["config"]["encoder"]["class_name"], from_config(config, encoder).encoder is encoder
    ('EncoderOfModel', True)
    """
    serialized, placeholder = (
        keras.saving.serialize_keras_object(one) for one in (encoder, EncoderOfModel())
    )
    own = _without_ids(serialized)

    def replaced(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return [replaced(one) for one in part]
        if not isinstance(part, dict):
            return part
        if part.get("class_name") == own["class_name"] and _without_ids(part) == own:
            return placeholder
        return {name: replaced(value) for name, value in part.items()}

    return replaced(keras.saving.serialize_keras_object(prior))


def from_config(config: dict[str, Any], encoder: keras.layers.Layer) -> Any:
    """Returns the prior layer that `config_of` serialised, with another encoder in place of the placeholder."""
    token = _encoder.set(encoder)
    try:
        return keras.saving.deserialize_keras_object(config)
    finally:
        _encoder.reset(token)


def is_placeholder(config: dict[str, Any]) -> bool:
    """Returns whether a serialised object is the placeholder."""
    return config.get("class_name") == EncoderOfModel.__name__


def _without_ids(part: Any) -> Any:
    """Returns a config without the numbers that Keras gives to objects that occur several times in a file."""
    if isinstance(part, dict):
        return {name: _without_ids(value) for name, value in part.items() if name != "shared_object_id"}
    return [_without_ids(one) for one in part] if isinstance(part, (list, tuple)) else part
