"""Trains the encoder of a run further, also on images that the model generates; decoder and prior stay as they are.

An encoder that sees only the training images overfits: q(z | x) is worse for test images, and with it every bound. Images that
the model generates never run out, and the best q(z | x) for them is the posterior as well (Zhang, Hayes and Barber 2022). p(x)
does not change. A VampPrior's components become those of a mixture of normals, because they must not follow the encoder:

    python examples/encoder_on_samples.py runs/first --save model.keras

Prints the test log-likelihood from the encoder's q, before and after, as JSON. The epoch is chosen by the validation ELBO.
"""

import argparse
import json

import keras
import numpy as np
import tensorflow as tf

import tfvamp
from tfvamp import seeds


def with_fixed_prior(model):
    """Returns a copy of the model in which only the encoder can be trained, and whose prior does not depend on it."""
    config, components = model.get_config(), None
    if isinstance(model.prior, tfvamp.layers.MixturePriorLayer):
        mixture = model.prior()
        if np.ptp(mixture.mixture_distribution.logits_parameter()) > 0.0:
            raise SystemExit("the components must have equal weights")
        components = mixture.components_distribution
        config |= {"prior": "mog", "components": components.batch_shape[0]}
    copy = type(model).from_config(config)
    for which in ("encoder", "decoder"):
        for ours, theirs in zip(copy.networks(which), model.networks(which), strict=True):
            ours.set_weights(theirs.get_weights())
    if components is not None:
        copy.prior.set_weights([components.loc, components.log_variance])
    for layer in (copy.prior, *copy.networks("decoder")):
        layer.trainable = False
    return copy


def batches(model, images: np.ndarray, share: float, epochs: int, batch_size: int = 100) -> tf.data.Dataset:
    """Returns batches of training images, a share of which is replaced by images that the model generates."""
    generated = round(share * batch_size)

    def with_generated(step, x):
        if not generated:
            return x
        seed = seeds.fold_in(seeds.stateless(0, "samples"), step)
        return tf.concat([x, model.sample(generated, seed, draw=True)], axis=0)

    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=0).repeat(epochs)
    return data.batch(batch_size - generated, drop_remainder=True).enumerate().map(with_generated).prefetch(1)


class Best(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation ELBO, and gives them back at the end."""

    best = -np.inf

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_elbo"] > self.best:
            self.best, self.epoch, self.weights = logs["val_elbo"], epoch + 1, self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder")
    parser.add_argument("--epochs", type=int, default=600, help="number of epochs (default 600)")
    parser.add_argument("--share", type=float, default=0.5, help="share of generated images (default 0.5)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-4, help="first learning rate (default 3e-4)"
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
    steps = max(1, len(train) // 100)
    schedule = keras.optimizers.schedules.CosineDecay(words.learning_rate, words.epochs * steps, alpha=0.01)
    before = tfvamp.log_likelihood(model, test, words.samples).per_example
    model.compile(tfvamp.optimizers.NormalizedAdam(schedule))
    best = Best()
    model.fit(
        batches(model, train, words.share, 2 * words.epochs),
        epochs=words.epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=[best],
        verbose=2,
    )
    after = tfvamp.log_likelihood(model, test, words.samples).per_example
    if words.save:
        model.save(words.save)
    difference = after - before
    result = {
        "epoch": best.epoch,
        "validation_elbo": best.best,
        "before": before.mean(),
        "after": after.mean(),
        "difference": difference.mean(),
        "difference_error": difference.std(ddof=1) / np.sqrt(len(difference)),
        "images": len(test),
    }
    print(json.dumps({name: round(float(value), 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
