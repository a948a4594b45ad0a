"""The Kullback-Leibler divergence as a layer, for models trained by `fit`."""

from __future__ import annotations

import warnings
import weakref

import keras
import tensorflow as tf

from tfvamp.layers.gaussian import GaussianSample, as_diagonal_gaussian, at_least_float32
from tfvamp.layers.numbering import NumberedLayer
from tfvamp.layers.priors import PriorLayer, width_of

# Divergences whose z was drawn but has not yet reached them, with the graph in which it was drawn.
_expected: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@keras.saving.register_keras_serializable(package="tfvamp")
class KLDivergence(NumberedLayer):
    """Adds beta KL(q(z | x) || p(z)) to the model's loss, and passes z on to the decoder.

    The divergence is estimated by log q(z | x) - log p(z) at the given z, because a mixture has no
    closed form. It is summed over the latents and averaged over the batch, in nats. Together with a
    loss that is summed over the pixels, such as `tfvamp.losses.NegativeLogLikelihood`, and with
    beta = 1, the model's loss is the negative ELBO. The mean divergence, without beta, is a metric
    under the layer's name.

    Args:
      prior: p(z), a prior layer; its weights are trained with the model.
      beta: weight of the divergence after warm-up (`tfvamp.callbacks.WarmUp`).
      name: name of the layer and its metric; None for "kl", and "kl_1", "kl_2"... for further
        layers of a functional model.

    Call: [mean, log_variance, z], or [encoder output, z], z [B, D] -> z.

    >>> prior = StandardNormalPriorLayer(latent_dims=2)
    >>> mean, log_variance = keras.Input((2,)), keras.Input((2,))
    >>> z = GaussianSample()([mean, log_variance])
    >>> z = KLDivergence(prior)([mean, log_variance, z])  # goes to the decoder
    >>> keras.Model([mean, log_variance], z).output_shape
    (None, 2)
    """

    def __init__(self, prior: PriorLayer, beta: float = 1.0, name: str | None = None, **kwargs):
        dtype = at_least_float32(keras.config.floatx())
        super().__init__("kl", name, **{"dtype": dtype, "autocast": False, **kwargs})
        if not isinstance(prior, PriorLayer):
            raise TypeError(
                f"prior must be a prior layer, such as VampPriorLayer(...); got {type(prior).__name__}"
            )
        if not beta >= 0.0:
            raise ValueError(f"beta must be at least 0; got {beta}")
        if prior.uses_indices:
            warnings.warn(
                f"KLDivergence does not know which training images a batch has, so that the {type(prior).__name__} does not "
                "leave them out, and can put its mass on them: train it in tfvamp.VAE(prior=...), or call its "
                "`leaving_out` in a train_step of your own",
                stacklevel=2,
            )
        self.prior = prior
        self.final_beta = float(beta)
        self.beta = self.add_weight(
            name="beta", shape=(), initializer=keras.initializers.Constant(beta), trainable=False
        )
        self.built = True

    def warm_up(self, fraction: float) -> None:
        """Sets beta to this fraction of its final value."""
        self.beta.assign(fraction * self.final_beta)

    def compute_output_spec(self, inputs):
        """Returns the shapes for symbolic inputs; from then on, a z that is drawn must reach this layer."""
        inputs = self._checked(inputs)
        self._check_width(inputs[-1].shape)  # Keras would put a text of its own before the error of `call`
        layer = _drawn_by(inputs[-1])
        if layer is not None:
            reference = weakref.ref(self)
            layer.told.append(lambda: _expect(reference()))
        return super().compute_output_spec(inputs)

    def call(self, inputs):
        *output, z = self._checked(inputs)
        posterior = as_diagonal_gaussian(output[0] if len(output) == 1 else output)
        z = tf.convert_to_tensor(z)
        if not z.shape.is_compatible_with(posterior.loc.shape):
            raise ValueError(
                f"z must have the posterior's shape {list(posterior.loc.shape)}; got {list(z.shape)}"
            )
        log_q = posterior.log_prob(tf.cast(z, posterior.dtype))
        kl = tf.cast(log_q, self.compute_dtype) - tf.cast(self.prior(z), self.compute_dtype)
        self.mean.update_state(kl)
        self.add_loss(self.beta * tf.reduce_mean(kl))
        _expected.pop(self, None)
        return z

    def _checked(self, inputs) -> list | tuple:
        """Returns the inputs, a list of two or three.

        Raises:
          ValueError: they are something else, or [mean, log_variance] without z.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
            raise ValueError(
                "KLDivergence must be called on [mean, log_variance, z] or on [encoder output, z]; "
                f"got {type(inputs).__name__}"
            )
        first, z = inputs[0], inputs[-1]
        if len(inputs) == 2 and isinstance(first, type(z)) and first.shape == z.shape:
            raise ValueError(
                "KLDivergence reads two inputs as [encoder output, z], and an encoder output that is one tensor has "
                f"twice as many columns as z; got two of shape {list(z.shape)}: z is missing from "
                "[mean, log_variance, z], where z = GaussianSample()([mean, log_variance])"
            )
        return inputs

    def _check_width(self, shape) -> None:
        width = width_of(self.prior)
        if shape[-1] not in (None, width):
            raise ValueError(
                f"the prior of {self.name!r} has {width} latents, and z has {shape[-1]}: shape {list(shape)}"
            )

    def get_config(self):
        prior = keras.saving.serialize_keras_object(self.prior)
        return {**super().get_config(), "prior": prior, "beta": self.final_beta}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "prior": keras.saving.deserialize_keras_object(config["prior"])})


def warn_of_those_left_out() -> None:
    """Warns about divergences that the model being compiled leaves out although it draws their z: they add nothing."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    for divergence, drawn_in in list(_expected.items()):
        if graph is not None and drawn_in() is graph:
            warnings.warn(
                f"the KLDivergence layer {divergence.name!r} is not on the way from the input to the output, and adds "
                "nothing to the loss: give the decoder the z that it returns, z = KLDivergence(prior)([..., z])",
                stacklevel=2,
            )
            _expected.pop(divergence, None)


def _expect(divergence: KLDivergence | None) -> None:
    if divergence is not None and not tf.executing_eagerly():
        _expected[divergence] = weakref.ref(tf.compat.v1.get_default_graph())


def _drawn_by(z) -> GaussianSample | None:
    """Returns the layer that draws a symbolic z, also if it is in a model inside the model."""
    while keras.utils.is_keras_tensor(z):
        history = z._keras_history
        if isinstance(history.operation, GaussianSample):
            return history.operation
        if not isinstance(history.operation, keras.Model):
            return None
        z = keras.tree.flatten(history.operation.outputs)[history.tensor_index]
    return None
