"""Trains the encoder of a run further, also on images that the model generates; decoder and prior stay as they are.

An encoder that sees only the training images overfits: q(z | x) is worse for test images, and with it every bound. Images that
the model generates never run out, and come with the latents that they were made from. p(x) does not change. A VampPrior's
components become those of a mixture of normals, because they must not follow the encoder:

    python examples/encoder_on_samples.py runs/first --save model.keras

The objective "importance" raises the importance-weighted bound of training images (Burda, Grosse and Salakhutdinov 2016) and
log q(z | x) of generated images (the sleep phase of Hinton and others 1995): q covers the posterior, as importance sampling
needs it. The objective "elbo" raises the ELBO of both (Zhang, Hayes and Barber 2022). Prints the test log-likelihood from the
encoder's q, before and after, as JSON. The epoch is chosen by the bound of the validation images.
"""

import argparse
import json

import keras
import numpy as np
import tensorflow as tf

import tfvamp
from tfvamp import objectives, seeds

IMAGES = 50  # training images per step
GENERATED = 200  # generated images per step
IMPORTANCE = 8  # importance samples in training
CHECKED = 10  # epochs between validations


def with_fixed_prior(model):
    """Returns a copy of the model in which only the encoder can be trained, and whose prior does not depend on it."""
    config, components = model.get_config(), None
    if isinstance(model.prior, tfvamp.layers.MixturePriorLayer):
        mixture = model.prior()
        if np.ptp(mixture.mixture_distribution.logits_parameter()) > 0.0:
            raise SystemExit("the components must have equal weights")
        components = mixture.components_distribution
        config |= {"prior": "mog", "components": components.batch_shape[0]}
    elif {id(v) for network in model.networks("encoder") for v in network.variables} & {
        id(v) for v in model.prior.variables
    }:
        raise SystemExit("a prior that follows the encoder must be a mixture")
    copy = type(model).from_config(config)
    for which in ("encoder", "decoder"):
        for ours, theirs in zip(copy.networks(which), model.networks(which), strict=True):
            ours.set_weights(theirs.get_weights())
    copy.prior.set_weights(
        model.prior.get_weights() if components is None else [components.loc, components.log_variance]
    )
    for layer in (copy.prior, *copy.networks("decoder")):
        layer.trainable = False
    return copy


def generated(model, count: int, seed):
    """Returns latents [N, D] of each layer, the top one first, and images [N, H, W, C] drawn from p(x | z) at them."""
    latents = [model.prior.sample(count, seed=seeds.fold_in_name(seed, "latents"))]
    for level in model.levels:
        below = level.prior(latents[-1])
        latents.append(below.at(seeds.normal([count, level.dims], seeds.fold_in_name(seed, level.name))))
    return latents, model.likelihood(*latents).sample(seed=seeds.fold_in_name(seed, "pixels"))


def with_noise(model, x, seed):
    """Returns the encoder's input: training images with as many pixels dropped as in the run's training.

    Generated images need no noise: there are always new ones.
    """
    kept = 1.0 - model.input_dropout
    uniform = seeds.uniform(tf.shape(x), seeds.fold_in_name(seed, "dropped"), x.dtype)
    return tf.where(uniform < kept, x / kept, 0.0)


def bound(model, x, inputs, seed, samples: int):
    """Returns the mean importance-weighted bound of images, or the ELBO for one sample."""
    posterior, generator = model.posterior(inputs), model.generator()
    noise = objectives.noise(posterior, model.levels, seed, samples)
    if samples == 1:
        terms = objectives.elbo(posterior, generator, x, noise, inputs=inputs)
    else:
        terms = objectives.iwae_bound(
            posterior,
            generator,
            x,
            noise,
            num_importance_samples=samples,
            doubly_reparameterized=True,
            inputs=inputs,
        )
    return tf.reduce_mean(terms.surrogate)


def log_q(model, latents, inputs):
    """Returns the mean of log q(z | x), all layers together."""
    total = model.posterior(inputs).log_prob(latents[0])
    for level, above, z in zip(model.levels, latents[:-1], latents[1:], strict=True):
        total += level.posterior(inputs, above).log_prob(z)
    return tf.reduce_mean(total)


def step_of(model, optimizer, objective: str):
    """Returns a function that takes one step with a seed, on the given training images and on GENERATED new ones."""
    variables = [v for network in model.networks("encoder") for v in network.trainable_variables]
    optimizer.build(variables)

    @tf.function(jit_compile=True)
    def step(x, seed):
        latents, made = generated(model, GENERATED, seed)
        with tf.GradientTape() as tape:
            if objective == "elbo":
                both, inputs = (
                    tf.concat([images, made], axis=0) for images in (x, with_noise(model, x, seed))
                )
                loss = -bound(model, both, inputs, seed, 1)
            else:
                loss = -bound(model, x, with_noise(model, x, seed), seed, IMPORTANCE)
                loss -= log_q(model, latents, made)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder")
    parser.add_argument(
        "--objective", choices=("importance", "elbo"), default="importance", help="default importance"
    )
    parser.add_argument("--epochs", type=int, default=200, help="number of epochs (default 200)")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, help="first learning rate (default 1e-3)"
    )
    parser.add_argument("--samples", type=int, default=5000, help="importance samples (default 5000)")
    parser.add_argument("--limit", type=int, help="number of images of each split (default all)")
    parser.add_argument("--save", help="file for the model (.keras)")
    parser.add_argument("--data-dir", help="folder of prepared data")
    words = parser.parse_args()

    run = tfvamp.Run(words.run)
    data = run.dataset(limit=words.limit, data_dir=words.data_dir)
    train, validation, test = (data.split(name).array()[0] for name in ("train", "validation", "test"))
    model = with_fixed_prior(run.model())
    size = min(IMAGES, len(train))
    steps = len(train) // size
    total = words.epochs * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, total, alpha=0.01, warmup_target=words.learning_rate, warmup_steps=max(1, total // 20)
    )
    step = step_of(model, tfvamp.optimizers.NormalizedAdam(schedule), words.objective)
    before = tfvamp.log_likelihood(model, test, words.samples).per_example
    best, best_epoch, weights, order = -np.inf, 0, None, np.random.default_rng(0)
    for epoch in range(1, words.epochs + 1):
        images = tf.constant(train[order.permutation(len(train))])
        for index in range(steps):
            seed = seeds.fold_in(seeds.stateless(0, "further"), epoch * steps + index)
            step(images[index * size : (index + 1) * size], seed)
        if epoch % CHECKED == 0 or epoch == words.epochs:
            samples = 1 if words.objective == "elbo" else 100
            value = tfvamp.log_likelihood(model, validation, samples).mean
            print(f"epoch {epoch}/{words.epochs}  validation bound {value:.2f}", flush=True)
            if value > best:
                best, best_epoch, weights = value, epoch, model.get_weights()
    model.set_weights(weights)
    after = tfvamp.log_likelihood(model, test, words.samples).per_example
    if words.save:
        model.save(words.save)
    difference = after - before
    result = {
        "epoch": best_epoch,
        "validation_bound": best,
        "before": before.mean(),
        "after": after.mean(),
        "difference": difference.mean(),
        "difference_error": difference.std(ddof=1) / np.sqrt(len(difference)),
        "images": len(test),
    }
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
