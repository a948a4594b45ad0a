"""Priors and likelihoods by their names in the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.config import DENSITIES, FLOW_BASES, LIKELIHOODS, PRIORS, TrainConfig, prior_kind
from tfvamp.errors import UsageError, check_choice
from tfvamp.layers.discretized_logistic import DiscretizedLogisticLikelihood
from tfvamp.layers.exemplar_prior import ExemplarPriorLayer
from tfvamp.layers.flow_prior import FlowPriorLayer
from tfvamp.layers.likelihoods import PROBABILITY_CLIP, BernoulliLikelihood, LikelihoodLayer
from tfvamp.layers.priors import (
    MixtureOfGaussiansPriorLayer,
    MixturePriorLayer,
    PriorLayer,
    StandardNormalPriorLayer,
)
from tfvamp.layers.vamp_prior import VampMixturePriorLayer, VampPriorLayer

PseudoInputs: TypeAlias = np.ndarray | tf.Tensor | keras.initializers.Initializer | Callable | None


def number_of_components(name: str, flow_base: str, components: int, pseudo_inputs: PseudoInputs) -> int:
    """Returns K of the prior of that name: `components`, or the number of exemplars for a prior of exemplars."""
    check_choice("prior", name, PRIORS)
    check_choice("base of a flow", flow_base, FLOW_BASES)
    has_exemplars = prior_kind(name, flow_base).pseudo_inputs == "exemplars"
    return (
        len(pseudo_inputs)
        if has_exemplars and isinstance(pseudo_inputs, (np.ndarray, tf.Tensor))
        else components
    )


def build_prior(
    name: str,
    encoder: keras.layers.Layer,
    event_shape: Sequence[int],
    latent_dims: int,
    components: int,
    pseudo_inputs: PseudoInputs = None,
    flow_base: str = TrainConfig.flow_base,
    flow_couplings: int = TrainConfig.flow_couplings,
    flow_units: int = TrainConfig.flow_units,
    flow_transform: str = TrainConfig.flow_transform,
    layer_name: str = "prior",
) -> PriorLayer:
    """Returns the prior layer of that name; the base of a flow is the prior layer named `flow_base`.

    Raises:
      UsageError: a name is unknown, K is below 1, or the prior takes images as pseudo-inputs and gets none.
    """
    check_choice("prior", name, PRIORS)
    check_choice("base of a flow", flow_base, FLOW_BASES)
    kind = prior_kind(name, flow_base)
    if kind.mixture and components < 1:
        raise UsageError(f"the number of components K must be at least 1; got {components}")
    if kind.pseudo_inputs in ("images", "exemplars") and pseudo_inputs is None:
        which = (
            "K training images, [K, H, W, C]"
            if kind.pseudo_inputs == "images"
            else "all training images, [N, H, W, C]"
        )
        raise UsageError(f"the prior {name} needs pseudo_inputs: {which}")

    def vamp(**options: Any) -> VampPriorLayer:
        shape = tuple(event_shape)
        return VampPriorLayer(
            encoder, components, event_shape=shape, initial=pseudo_inputs, name=layer_name, **options
        )

    def flow() -> FlowPriorLayer:
        base = build_prior(
            flow_base, encoder, event_shape, latent_dims, components, pseudo_inputs, layer_name="base"
        )
        return FlowPriorLayer(base, latent_dims, flow_couplings, flow_units, flow_transform, name=layer_name)

    builders: dict[str, Callable[[], PriorLayer]] = {
        "standard": lambda: StandardNormalPriorLayer(latent_dims, name=layer_name),
        "mog": lambda: MixtureOfGaussiansPriorLayer(components, latent_dims, name=layer_name),
        "vamp": vamp,
        "vamp-data": lambda: vamp(trainable=False),
        "vamp-weighted": lambda: vamp(weighted=True),
        "vamp-mixture": lambda: VampMixturePriorLayer(
            encoder,
            components,
            event_shape=tuple(event_shape),
            initial=pseudo_inputs,
            latent_dims=latent_dims,
            name=layer_name,
        ),
        "exemplar": lambda: ExemplarPriorLayer(
            encoder, pseudo_inputs, components, event_shape=tuple(event_shape), name=layer_name
        ),
        "flow": flow,
    }
    return builders[name]()


def own_prior(
    prior: PriorLayer | Callable[[keras.layers.Layer], PriorLayer],
    encoder: keras.layers.Layer,
    latent_dims: int,
) -> PriorLayer:
    """Returns a prior of your own, given as a layer or as a function from the encoder to a layer, after checking it.

    Raises:
      UsageError: it is not a prior layer, or its distribution is not one over `latent_dims` latents.
    """
    if not isinstance(prior, PriorLayer):
        try:
            inspect.signature(prior).bind(encoder)
        except ValueError:  # a function of C has no signature
            pass
        except TypeError as error:
            what = f"the class {prior.__name__}" if isinstance(prior, type) else repr(prior)[:80]
            raise UsageError(
                f"prior must be a name, a prior layer, or a function from the encoder to a prior layer; got {what}: make the "
                "layer first"
            ) from error
    layer = prior if isinstance(prior, PriorLayer) else prior(encoder)
    if not isinstance(layer, PriorLayer):
        raise UsageError(
            "prior must be a name, a prior layer, or a function from the encoder to a prior layer "
            f"(a subclass of tfvamp.layers.PriorLayer); got {type(layer).__name__}"
        )
    name, distribution = type(layer).__name__, layer.distribution()
    if layer.density not in DENSITIES:
        raise UsageError(f"{name}.density must be one of {', '.join(DENSITIES)}; got {layer.density!r}")
    if not isinstance(distribution, tfd.Distribution):
        raise UsageError(
            f"{name}.distribution() must return a tfd.Distribution; got {type(distribution).__name__}"
        )
    batch, event = distribution.batch_shape, distribution.event_shape
    if event != [latent_dims] or batch != []:
        hint = ": tfd.Independent(..., 1) makes it" if [*batch, *event] == [latent_dims] else ""
        raise UsageError(
            f"{name}.distribution() must be a distribution over latents, with event shape [{latent_dims}] and "
            f"batch shape []{hint}; got event shape {event.as_list()} and batch shape {batch.as_list()}"
        )
    if isinstance(layer, MixturePriorLayer) and not layer.is_mixture():
        raise UsageError(
            f"{name}.distribution() must return a DiagonalGaussianMixture, whose components are known; got "
            f"{type(distribution).__name__}: leave out the method, because components() and log_weights() define it"
        )
    if distribution.dtype != layer.density_dtype:
        raise UsageError(
            f"{name}.distribution() must have the dtype {layer.density_dtype}; got {distribution.dtype.name}"
        )
    return layer


def likelihood_layer(name: str, event_shape: Sequence[int]) -> LikelihoodLayer:
    """Returns the likelihood layer of that name.

    Raises:
      UsageError: the name is unknown.
    """
    check_choice("likelihood", name, LIKELIHOODS)
    # One name for all: Keras would number them, and files of the same weights would differ.
    options: dict[str, Any] = {"event_shape": event_shape, "name": "likelihood"}
    builders: dict[str, Callable[[], LikelihoodLayer]] = {
        "bernoulli": lambda: BernoulliLikelihood(**options),
        "bernoulli-clipped": lambda: BernoulliLikelihood(**options, clip=PROBABILITY_CLIP),
        "logistic": lambda: DiscretizedLogisticLikelihood(**options),
        "logistic-paper": lambda: DiscretizedLogisticLikelihood(**options, open_ends=False),
    }
    return builders[name]()
