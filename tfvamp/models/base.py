"""The base class of all models: training steps, sampling, reconstruction, and the choice of the prior."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfvamp import memory, objectives, seeds
from tfvamp.blocks import in_blocks, rows_of
from tfvamp.config import LEVEL_PRIORS, TrainConfig, prior_kind
from tfvamp.errors import UsageError, check_choice
from tfvamp.layers import shared_encoder
from tfvamp.layers.exemplar_prior import digest_of
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.layers.likelihoods import LikelihoodLayer
from tfvamp.layers.priors import PriorLayer
from tfvamp.layers.pseudo_inputs import LOADED_LATER
from tfvamp.models import in_parts
from tfvamp.models.choices import PseudoInputs, build_prior, likelihood_layer, number_of_components, own_prior
from tfvamp.models.inputs import INDEX, ImageInputs, images_of_step, index_of, num_rows
from tfvamp.models.objective import Objective
from tfvamp.networks.images import unchecked


class LatentVariableModel(ImageInputs, keras.Model, abc.ABC):
    """A variational auto-encoder with one or several stochastic layers.

    Images [B, H, W, C] are checked wherever they enter the model. [B, H, W] (if C is 1) and
    [B, H * W * C] are reshaped, integers and booleans are cast, and the "image" of a dictionary is
    taken. Any other shape, pixels outside [0, 1] and NaN are refused.

    Subclasses make `encoder` (from images to q(z | x) of the top latents), `prior` (a prior layer
    on these latents), `decoder` (from all latents, the top ones first), and `levels` (the layers
    below the top).

    Args:
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, number of latents of each stochastic layer.
      hidden_units: width of the hidden layers.
      layers: number of stochastic layers; None for the default of the class. `HVAE` takes 2 to 8.
      shared_levels: for an `HVAE`, whether the layers below the top one share the networks of
        q(z_l | x, z_l+1) and p(z_l | z_l+1).
      level_prior: for models with several stochastic layers, p(z_l | z_l+1) below the top one:
        "normal", a diagonal normal given by a network as in the paper, or "vamp", the posterior at
        a pseudo-input that a network computes from z_l+1 (`AmortizedVampPrior`).
      decoder_layers, decoder_units: number and width (None: `hidden_units`) of the hidden layers of
        a decoder made of dense layers.
      prior: "standard", "mog", "vamp", "vamp-data", "vamp-weighted", "vamp-mixture", "exemplar" or
        "flow"; or a prior layer of your own, or a function from the encoder to one.
      components: K, for mixtures; "exemplar" has one component per exemplar.
      pseudo_inputs: initial pseudo-inputs of the VampPriors, an array [K, H, W, C] or a Keras
        initializer; "vamp-data" needs the array, and "exemplar" needs the array of all training
        images.
      likelihood: for binary images, "bernoulli", or "bernoulli-clipped" with probabilities in
        [1e-5, 1 - 1e-5]; for grey ones, "logistic" (`DiscretizedLogisticLikelihood`), or
        "logistic-paper" in the form of the paper's code.
      objective: "elbo" or "iwae"; `num_samples`, `importance_samples` and `dreg` are as in
        `Objective`.
      input_dropout: share of the encoder's input pixels that are set to 0 in training; the others
        are divided by 1 - `input_dropout`. The bound stays a bound, as it does for any q.
        Pseudo-inputs are encoded without dropout.
      components_per_step: number of components of the prior, chosen at random, that a training step
        uses (None: all). The estimated density is corrected for the components that are left out,
        see `PriorLayer.of_some`.
      neighbours_per_step: for a prior of exemplars, the number of nearest other exemplars of each
        image that a training step uses instead of all exemplars; see
        `ExemplarPriorLayer.of_neighbours`.
      flow_base, flow_couplings, flow_units, flow_transform: for the prior "flow", the name of the
        prior that it transforms, and the arguments `num_couplings`, `hidden_units` and `transform`
        of `FlowPriorLayer`.
      seed: seed of the noise in training, used together with the optimiser's iteration.
      check_inputs: whether to check the values of images, and not only their shape. Steps compiled
        with XLA do not check values; `fit`, `evaluate` and `predict` check them beforehand.

    Attributes:
      networks_version: version of the networks of the class; stored in run folders and `.keras`
        files. A class gets the next number when the same weights would compute something else.

    >>> from tfvamp.models import VAE
    >>> model = VAE(event_shape=(8, 8, 1), latent_dims=2, prior="mog", components=5)
    >>> model.elbo(model.sample(3, seed=0), seed=(0, 1)).bound.shape
    TensorShape([3])
    """

    networks_version: int = 1
    layer_counts = (1, 1)  # minimum and maximum number of stochastic layers
    dense = False  # whether its decoder has dense layers, and takes `decoder_layers` and `decoder_units`
    latent_names: tuple[str, ...]  # the latents of each stochastic layer, the top ones first
    features_per_pixel = 1  # of the decoder's widest layer
    faster_with_xla = True  # measured on CPUs: docs/performance.md
    couples_images = (
        False  # whether decoding one image depends on the others in training (batch normalisation)
    )
    validation_samples = 1
    validates_iwae = False
    images_at_a_time: int | None = None  # in one gradient of `train_step`; None: the whole batch
    skip_nonfinite = False  # whether `train_step` skips updates that would make weights NaN or infinite
    has_mean = True  # whether p(x | z) has a mean in closed form; without one, pixels are drawn

    def __init__(
        self,
        event_shape: Sequence[int] = (28, 28, 1),
        latent_dims: int = TrainConfig.latent_dims,
        hidden_units: int = TrainConfig.hidden_units,
        prior: str | PriorLayer | Callable[[keras.layers.Layer], PriorLayer] = TrainConfig.prior,
        components: int = 500,
        pseudo_inputs: PseudoInputs = None,
        likelihood: str = "bernoulli",
        objective: str = TrainConfig.objective,
        num_samples: int = TrainConfig.num_samples,
        importance_samples: int | None = TrainConfig.importance_samples,
        dreg: bool = TrainConfig.dreg,
        input_dropout: float = TrainConfig.input_dropout,
        components_per_step: int | None = TrainConfig.components_per_step,
        neighbours_per_step: int | None = TrainConfig.neighbours_per_step,
        flow_base: str = TrainConfig.flow_base,
        flow_couplings: int = TrainConfig.flow_couplings,
        flow_units: int = TrainConfig.flow_units,
        flow_transform: str = TrainConfig.flow_transform,
        layers: int | None = TrainConfig.layers,
        shared_levels: bool = TrainConfig.shared_levels,
        level_prior: str = TrainConfig.level_prior,
        decoder_layers: int = TrainConfig.decoder_layers,
        decoder_units: int | None = TrainConfig.decoder_units,
        seed: int = TrainConfig.seed,
        check_inputs: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.check_inputs = bool(check_inputs)
        self.event_shape = tuple(int(size) for size in event_shape)
        if not callable(prior):
            components = number_of_components(prior, flow_base, components, pseudo_inputs)
        self.latent_dims, self.hidden_units = int(latent_dims), int(hidden_units)
        self.objective = Objective(objective, num_samples, importance_samples, dreg)
        self.check_objective(self.objective)
        self.check_sizes(layers, shared_levels, decoder_layers, decoder_units, level_prior)
        self.latent_names = self.names_of_latents(layers)
        self.shared_levels, self.level_prior = bool(shared_levels), level_prior
        self.decoder_sizes = {
            "latent_dims": self.latent_dims,
            "hidden_units": self.hidden_units if decoder_units is None else int(decoder_units),
        }
        if self.dense:
            self.decoder_sizes["hidden_layers"] = int(decoder_layers)
        self.input_dropout = float(input_dropout)
        if not 0.0 <= self.input_dropout < 1.0:
            raise UsageError(f"input_dropout must lie in [0, 1); got {input_dropout}")
        if components_per_step is not None and components_per_step < 1:
            raise UsageError(f"components_per_step must be at least 1; got {components_per_step}")
        if neighbours_per_step is not None and (neighbours_per_step < 1 or components_per_step is not None):
            raise UsageError(
                "neighbours_per_step must be at least 1, and goes without components_per_step; got "
                f"{neighbours_per_step} and {components_per_step}"
            )
        self.components_per_step = components_per_step
        self.neighbours_per_step = neighbours_per_step
        self._traced_for = b""
        self.seed = int(seed)
        self.settings: dict[str, Any] = {
            "latent_dims": latent_dims,
            "hidden_units": hidden_units,
            "layers": layers,
            "shared_levels": shared_levels,
            "level_prior": level_prior,
            "decoder_layers": decoder_layers,
            "decoder_units": decoder_units,
            "prior": None if callable(prior) else prior,  # one of your own: see `get_config`
            "components": components,
            "likelihood": likelihood,
            "objective": objective,
            "num_samples": num_samples,
            "importance_samples": importance_samples,
            "dreg": dreg,
            "input_dropout": input_dropout,
            "components_per_step": components_per_step,
            "neighbours_per_step": neighbours_per_step,
        }
        of_flow: dict[str, Any] = {
            "flow_base": flow_base,
            "flow_couplings": flow_couplings,
            "flow_units": flow_units,
            "flow_transform": flow_transform,
        }
        self.settings |= of_flow
        self.make_networks(likelihood_layer(likelihood, self.event_shape))
        self.encoder.check_inputs = self.check_inputs
        if callable(prior):
            self.prior = own_prior(prior, self.encoder, self.latent_dims)
        else:
            self.prior = build_prior(
                prior, self.encoder, self.event_shape, latent_dims, components, pseudo_inputs, **of_flow
            )
        if components_per_step == 1 and self.prior.uses_indices:
            raise UsageError(
                "components_per_step must be at least 2 with a prior that leaves an image's own out"
            )
        self.beta = self.add_weight(name="beta", shape=(), initializer="ones", trainable=False)
        names = ["loss", "elbo", "reconstruction", "kl"]
        names += [f"kl_{name}" for name in self.latent_names if self.levels]
        self.trackers = [keras.metrics.Mean(name=name) for name in names]
        self.iwae_tracker = keras.metrics.Mean(name="iwae")
        self.build((None, *self.event_shape))

    @classmethod
    def check_objective(cls, objective: Objective) -> None:
        """Raises UsageError for an objective that the model does not support."""
        if cls.couples_images and objective.dreg:
            raise UsageError(
                f"{cls.__name__} has no doubly reparameterised gradient: its batch normalisation makes the weight of "
                "one sample depend on the others"
            )

    @classmethod
    def check_sizes(
        cls,
        layers: int | None,
        shared_levels: bool,
        decoder_layers: int,
        decoder_units: int | None,
        level_prior: str,
    ) -> None:
        """Raises UsageError for settings of layers that the model does not support."""
        check_choice("prior of the lower layers", level_prior, LEVEL_PRIORS)
        for name, number in (
            ("layers", layers),
            ("decoder_layers", decoder_layers),
            ("decoder_units", decoder_units),
        ):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                raise UsageError(f"{name} must be a whole number; got {number!r}")
        fewest, most = cls.layer_counts
        if layers is not None and not fewest <= layers <= most:
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            plural = "s" if most > 1 else ""
            raise UsageError(f"{cls.__name__} has {wanted} stochastic layer{plural}; got layers = {layers}")
        if shared_levels and most <= 2:
            raise UsageError(f"shared_levels goes with the model hvae: {cls.__name__} has nothing to share")
        if level_prior != TrainConfig.level_prior and most == 1:
            raise UsageError(f"level_prior goes with several stochastic layers: {cls.__name__} has one")
        if not cls.dense and (decoder_layers != TrainConfig.decoder_layers or decoder_units is not None):
            raise UsageError(
                f"decoder_layers and decoder_units go with the models vae and hvae: {cls.__name__} has a decoder of its own"
            )
        if decoder_layers < 0:
            raise UsageError(f"decoder_layers must be at least 0; got {decoder_layers}")
        if decoder_units is not None and decoder_units < 1:
            raise UsageError(f"decoder_units must be at least 1; got {decoder_units}")

    @classmethod
    def names_of_latents(cls, layers: int | None) -> tuple[str, ...]:
        """Returns the names of the latents of each stochastic layer, the top ones first; a class may have its own."""
        if (declared := getattr(cls, "latent_names", None)) is not None:
            return tuple(declared)
        count = cls.layer_counts[0] if layers is None else layers
        return ("z",) if count == 1 else tuple(f"z{layer}" for layer in range(count, 0, -1))

    @property
    def levels(self) -> tuple[objectives.Level, ...]:
        """The stochastic layers below the top one, from the top down."""
        return ()

    @abc.abstractmethod
    def make_networks(self, likelihood: LikelihoodLayer) -> None:
        """Makes and builds `encoder`, `decoder`, and the layers of `levels`."""

    def build(self, input_shape):
        self.built = True

    def compile(self, optimizer="rmsprop", loss=None, *, metrics=None, weighted_metrics=None, **kwargs):
        """Compiles the model as `keras.Model.compile` does, but without a loss and metrics: it has its own.

        Raises:
          UsageError: a loss or metrics are given, which would have no effect.
        """
        if loss is not None or metrics or weighted_metrics:
            raise UsageError(
                f"a {type(self).__name__} maximises a bound of its own, and shows {', '.join(t.name for t in self.trackers)}: "
                "leave out loss and metrics"
            )
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config):
        """Compiles the model as it was when it was saved; Keras leaves this to models with a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        """Traces the step for `fit`, and again when the exemplars have changed whose neighbours it contains."""
        if self.neighbours_per_step is not None and self.prior.uses_indices:
            exemplars = tf.nest.flatten(self.prior.clipped_pseudo_inputs())
            digest = digest_of([one.numpy() for one in exemplars])
            force, self._traced_for = force or digest != self._traced_for, digest
        return super().make_train_function(force=force)

    @property
    def metrics(self):
        """The metrics that `fit` resets and shows: only our own, without the empty loss that `compile` adds."""
        return [*self.trackers, self.iwae_tracker] if self.validates_iwae else self.trackers

    def call(self, images):
        """Returns reconstructions [B, H, W, C]: `pictures` of p(x | z) at the means of the posteriors."""
        return self.pictures(self.reconstruct(images), seeds.stateless(0))

    def posterior(self, images) -> DiagonalGaussian:
        """Returns q(z | x) of the top latents."""
        return as_diagonal_gaussian(self.encoder(self.as_images(images)))

    def likelihood(self, *latents):
        """Returns p(x | z) for latents [..., B, D], the top ones first."""
        return self.decoder(*latents)

    def generator(self, prior=None, training: bool = False) -> objectives.Generator:
        """Returns p(x, z) from the current weights; with `prior`, p(z) is not computed again."""
        decoder = functools.partial(self.decoder, training=training)
        return objectives.Generator(self.prior() if prior is None else prior, decoder, self.levels)

    def reconstruct(self, images, seed: int | tf.Tensor | None = None):
        """Returns p(x | z) at latents drawn from the posteriors, or at the posteriors' means without a seed."""
        images = self.as_images(images)
        posterior = self.posterior(images)
        noise = self._noise(posterior, seed)
        latents, _ = objectives.infer(posterior, self.levels, images, noise)
        return self.decoder(*latents)

    def generate(self, z, noise: Sequence[tf.Tensor] | None = None):
        """Returns p(x | z) for top latents z [n, D]; the others come from `noise` (`noise_below`), or are means."""
        latents = [z]
        for index, level in enumerate(self.levels):
            below = level.prior(latents[-1])
            # Every `OfNoise` has `loc`; the mean of a density of your own may have no closed form.
            latents.append(below.loc if noise is None else below.at(noise[index]))
        return self.decoder(*latents)

    def noise_below(self, n: int | tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Returns standard normal draws [n, D] for each layer below the top one."""
        dtype = self.prior.density_dtype
        return [
            seeds.normal([n, level.dims], seeds.fold_in_name(seed, level.name), dtype)
            for level in self.levels
        ]

    def generate_images(self, z, seed: tf.Tensor, draw: bool = False) -> tf.Tensor:
        """Returns pictures [n, H, W, C] of p(x | z) at top latents z [n, D], decoded in batches; `draw` as in `pictures`."""
        n = z.shape[0] or tf.shape(z)[0]
        noise, pixels = self.noise_below(n, seed), self._pixel_noise(n, seed, draw)

        def of_block(start, stop):
            likelihood = self.generate(z[start:stop], [draws[start:stop] for draws in noise])
            return self._picture(likelihood, None if pixels is None else pixels[start:stop])

        return in_blocks(of_block, n, rows_of(self, self.event_shape), [None, *self.event_shape])

    def pictures(self, likelihood, seed: tf.Tensor, draw: bool = False) -> tf.Tensor:
        """Returns the means of p(x | z), batch shape [n], as images [n, H, W, C].

        If `draw`, or if p(x | z) has no mean in closed form, pixels are drawn from the seed
        instead.
        """
        return self._picture(likelihood, self._pixel_noise(likelihood.batch_shape_tensor()[0], seed, draw))

    def _pixel_noise(self, n: int | tf.Tensor, seed: tf.Tensor, draw: bool) -> tf.Tensor | None:
        """Returns uniform numbers [n, H, W, C] for drawing pixels; None for pictures of means."""
        if self.has_mean and not draw:
            return None
        seed = seeds.fold_in_name(seed, "pixels")
        return seeds.uniform([n, *self.event_shape], seed, self.prior.density_dtype)

    def _picture(self, likelihood, uniform: tf.Tensor | None) -> tf.Tensor:
        picture = likelihood.mean() if uniform is None else likelihood.at_uniform(uniform)
        return tf.cast(picture, tf.float32)

    def _noise(self, posterior: DiagonalGaussian, seed) -> list[tf.Tensor]:
        """Returns standard normal draws [B, D] for each layer; zeros without a seed."""
        if seed is None:
            shape = tf.shape(posterior.loc)[:-1]
            dims = [posterior.event_shape[0], *(level.dims for level in self.levels)]
            return [tf.zeros(tf.concat([shape, [d]], axis=0), posterior.dtype) for d in dims]
        return [draw[0] for draw in objectives.noise(posterior, self.levels, seeds.as_seed(seed), 1)]

    def elbo(
        self,
        images,
        seed,
        beta: float | tf.Tensor = 1.0,
        num_samples: int = 1,
        part: objectives.Part | None = None,
    ) -> objectives.Bound:
        """Returns the evidence lower bound of each image and its parts, [B], in nats; `part` as in `objectives.noise`."""
        images = self.as_images(images)
        posterior = self.posterior(images)
        noise = objectives.noise(posterior, self.levels, seed, num_samples, part)
        return objectives.elbo(posterior, self.generator(), images, noise, beta)

    def bound(
        self,
        images,
        seed,
        beta: float | tf.Tensor = 1.0,
        training: bool = False,
        part: objectives.Part | None = None,
    ) -> objectives.Bound:
        """Returns the bound that training maximises (`objective`), for each image, [B], in nats.

        In training, `input_dropout` acts on the encoder's input, batch normalisation in a decoder
        uses the batch's moments, and a prior that `uses_indices` needs {"image": images, "index":
        indices [B]}. `part` is as in `objectives.noise`.
        """
        prior = self.prior_of_step(seed) if training else None
        return self._bound(images, seed, beta, training, part, prior)

    def prior_of_step(self, seed) -> Any:
        """Returns p(z) for a training step, from all components or some; None if it depends on the images."""
        if self.neighbours_per_step is not None and self.prior.uses_indices:
            return None
        if self.components_per_step is None:
            return self.prior()
        return self.prior.of_some(self.components_per_step, seeds.fold_in_name(seed, "components"))

    def _bound(
        self, images, seed, beta, training: bool, part: objectives.Part | None, prior
    ) -> objectives.Bound:
        images, indices = self.as_images(images), index_of(images)
        if training and self.prior.uses_indices:
            if indices is None:
                raise UsageError(
                    "the prior needs to know which training images a batch has: train on batches (or on a dictionary of "
                    f'arrays) {{"image": images, "{INDEX}": numbers of the images among the exemplars}}'
                )
            indices = self.checked_indices(indices, check_values=not tf.is_symbolic_tensor(indices))
            prior = self._prior_for(indices, prior)
        inputs = self._with_dropout(images, seed, part) if training and self.input_dropout else images
        with unchecked():  # pixels that are scaled up may lie above 1
            posterior = self.posterior(inputs)
            noise = objectives.noise(posterior, self.levels, seed, self.objective.num_draws, part)
            generator = self.generator(prior, training)
            return self.objective.bound(posterior, generator, images, noise, beta, inputs)

    def _prior_for(self, indices: tf.Tensor, prior) -> Any:
        """Returns p(z) for training images, given their indices among the exemplars."""
        if self.neighbours_per_step is not None:
            return self.prior.of_neighbours(self.neighbours_per_step, indices)
        return self.prior.leaving_out(self.prior() if prior is None else prior, indices)

    def _with_dropout(self, images: tf.Tensor, seed, part: objectives.Part | None = None) -> tf.Tensor:
        """Returns the images with some pixels set to 0 and the others scaled up, which keeps the mean."""
        kept, shape = 1.0 - self.input_dropout, tf.shape(images)
        total = shape[0] if part is None else part.total
        seed = seeds.fold_in_name(seed, "input dropout")
        uniform = seeds.uniform(tf.concat([[total], shape[1:]], axis=0), seed, images.dtype)
        if part is not None:
            uniform = tf.slice(uniform, tf.stack([part.start, 0, 0, 0]), shape)
        return tf.where(uniform < kept, images / kept, 0.0)

    def train_step(self, data):
        """Takes one step of the optimiser on images [B, H, W, C]; returns the running means of the epoch.

        A prior that `uses_indices` needs {"image": images, "index": indices [B]}. With
        `skip_nonfinite`, a step whose loss or gradient is NaN or infinite does not change the
        weights, and returns `skipped` = 1 as well.
        """
        images, seed = images_of_step(data), seeds.of_replica(self.step_seed())
        others = [tf.identity(one) for one in self.non_trainable_variables] if self.skip_nonfinite else []
        count = tf.distribute.get_strategy().num_replicas_in_sync
        loss, gradients, values = self.gradients(images, seed, count * num_rows(images))

        def change() -> None:
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            self._track(values)

        def skip() -> None:
            self.optimizer.iterations.assign_add(1)
            for variable, value in zip(self.non_trainable_variables, others, strict=True):
                variable.assign(value)  # the moments of batch normalisation

        if not self.skip_nonfinite:
            change()
            return self.means()
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in (loss, *gradients)])
        tf.cond(finite, change, skip)
        return {**self.means(), "skipped": 1.0 - tf.cast(finite, tf.float32)}

    def step_seed(self) -> tf.Tensor:
        """Returns the seed of the noise of the next training step."""
        return seeds.fold_in(seeds.stateless(self.seed, "train"), self.optimizer.iterations)

    def gradients(
        self, images, seed, total: int | tf.Tensor, part: objectives.Part | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Returns the loss, its gradient for each trainable variable (scaled for the optimiser), and tracked values.

        Args:
          images: [B, H, W, C], or {"image": images, "index": indices [B]}.
          seed: seed of the noise.
          total: divisor of the sum over the images.
          part: as in `objectives.noise`.

        Returns:
          the loss; the gradients; the values [B] that `trackers` average.
        """
        size = self.images_at_a_time
        count = tf.nest.flatten(images)[0].shape[0]
        if size is not None and count is not None and count > size:
            return in_parts.gradients(self, images, seed, total, part, size)
        with tf.GradientTape() as tape:
            bound = self.bound(images, seed, self.beta, training=True, part=part)
            loss = -tf.reduce_sum(bound.surrogate) / tf.cast(total, bound.surrogate.dtype)
            loss += tf.cast(self.penalty(images, total), loss.dtype)
            scaled_loss = self.optimizer.scale_loss(loss)
        return loss, tape.gradient(scaled_loss, self.trainable_variables), self.tracked(bound)

    def penalty(self, images, total: int | tf.Tensor) -> tf.Tensor:
        """Returns the penalty of the prior, times the share of these images in the `total`."""
        penalty = self.prior.penalty()
        share = tf.cast(num_rows(images), tf.float32) / tf.cast(total, tf.float32)
        return tf.zeros([]) if penalty is None else share * tf.cast(penalty, tf.float32)

    def test_step(self, data):
        """Computes the ELBO at beta = 1, from one sample unless `validate_by` sets more.

        The noise depends on the iteration and on the place in the validation pass.
        """
        self.track_validation(self.validation_bound(images_of_step(data), seeds.of_replica(self.test_seed())))
        return self.means()

    def test_seed(self) -> tf.Tensor:
        """Returns the seed of the noise of the next validation step."""
        seed = seeds.fold_in(seeds.stateless(self.seed, "validate"), self.optimizer.iterations)
        return seeds.fold_in(seed, self.trackers[0].count)

    def validation_bound(self, images, seed, part: objectives.Part | None = None) -> objectives.Bound:
        """Returns the ELBO of each image from `validation_samples`, or their importance-weighted bound.

        `part` is as in `objectives.noise`.
        """
        if not self.validates_iwae:
            return self.elbo(images, seed, num_samples=self.validation_samples, part=part)
        images = self.as_images(images)
        posterior, samples = self.posterior(images), self.validation_samples
        noise = objectives.noise(posterior, self.levels, seed, samples, part)
        generator = self.generator()
        return objectives.iwae_bound(posterior, generator, images, noise, num_importance_samples=samples)

    def track_validation(self, bound: objectives.Bound) -> None:
        """Adds a batch of the validation to the means."""
        self._track(self.tracked(bound))
        if self.validates_iwae:
            self.iwae_tracker.update_state(bound.bound)

    def validate_by(self, num_samples: int, iwae: bool = False) -> None:
        """Sets how many samples per image `test_step` takes, and whether it also gives their bound `iwae`."""
        self.validation_samples, self.validates_iwae = num_samples, iwae

    @contextlib.contextmanager
    def maximising(self, objective: Objective) -> Iterator[None]:
        """Makes training steps that are traced within it maximise another objective than the model's own."""
        own, self.objective = self.objective, objective
        try:
            yield
        finally:
            self.objective = own

    def networks(self, which: str) -> list[keras.layers.Layer]:
        """Returns the networks of the posteriors ("encoder"), or of p(x | z) and the layers below the prior ("decoder")."""
        if which == "encoder":
            return [self.encoder, *(level.posterior for level in self.levels)]
        return [self.decoder, *(level.prior for level in self.levels)]

    def variables_of_prior(self) -> list[keras.Variable]:
        """Returns the trainable variables that belong only to the prior, not those of an encoder that it shares."""
        networks = [*self.networks("encoder"), *self.networks("decoder")]
        shared = {id(one) for network in networks for one in network.trainable_variables}
        return [one for one in self.prior.trainable_variables if id(one) not in shared]

    def warm_up(self, fraction: float) -> None:
        """Sets beta to a fraction of its final value, which is 1."""
        self.beta.assign(fraction)

    def _track(self, values: Sequence[tf.Tensor]) -> None:
        """Adds the values that `tracked` returns for a batch to the means over examples."""
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value)

    def tracked(self, bound: objectives.Bound) -> list[tf.Tensor]:
        """Returns the values that `trackers` average: per image, [B], the loss, the ELBO at beta = 1 and its parts."""
        values = [-bound.bound, bound.reconstruction - bound.kl, bound.reconstruction, bound.kl]
        return [*values, *(bound.kls if self.levels else ())]

    def means(self) -> dict[str, tf.Tensor]:
        """Returns the means so far."""
        return {tracker.name: tracker.result() for tracker in self.metrics}

    def sample(
        self, n: int, seed: seeds.Seed = None, component: int | None = None, draw: bool = False
    ) -> tf.Tensor:
        """Returns images [n, H, W, C] generated from the prior.

        Args:
          n: number of images.
          seed: seed of the images, of any type that `PriorLayer.sample` takes; the same seed gives
            the same images.
          component: generate only from this component of the prior (for a VampPrior, from the
            posterior at one pseudo-input).
          draw: whether to draw the pixels; otherwise the images are the means of p(x | z), if
            these have a closed form.

        Raises:
          UsageError: n is below 1, or the prior does not have the component.
        """
        if n < 1:
            raise UsageError(f"the number of samples must be at least 1; got {n}")
        values = 2 * math.prod(self.event_shape) + self.latent_dims * (1 + len(self.levels))
        memory.check(4.0 * n * values, f"{n} images", "choose a smaller number")
        seed = seeds.as_seed(seed)
        if component is None:
            z = self.prior.sample(n, seeds.fold_in_name(seed, "latents"))
        else:
            z = self.prior.sample_component(component, n, seeds.fold_in_name(seed, "latents"))
        return self.generate_images(z, seed, draw)

    def get_config(self):
        config = {
            "networks_version": self.networks_version,
            "event_shape": self.event_shape,
            "seed": self.seed,
            "check_inputs": self.check_inputs,
        }
        config = {**super().get_config(), **config, **self.settings}
        if self.settings["prior"] is None:
            config["prior"] = shared_encoder.config_of(self.prior, self.encoder)
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        version = config.pop("networks_version", 1)  # files of tfvamp 0.1.0 have none
        if version != cls.networks_version:
            raise ValueError(
                f"the file was made by version {version} of the networks of {cls.__name__}, and this is version "
                f"{cls.networks_version}, in which the same weights would compute something else: train again"
            )
        if isinstance(config["prior"], dict):
            return cls(**{**config, "prior": functools.partial(shared_encoder.from_config, config["prior"])})
        kind = prior_kind(config["prior"], config.get("flow_base", TrainConfig.flow_base))
        if kind.pseudo_inputs in ("images", "exemplars"):  # they come with the weights
            config = {**config, "pseudo_inputs": LOADED_LATER}
        return cls(**config)
