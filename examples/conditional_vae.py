"""A conditional VAE that draws a chosen digit; its VampPrior's encoder takes an image and a label.

The pseudo-inputs are pairs, too: K images, clipped to [0, 1], and K labels, learned through a softmax; they start at
data. On 5,000 real digits, some minutes:

    python examples/conditional_vae.py --pictures digits.png

At the end a linear classifier, trained on the real digits, says how many samples are the digit that was asked for.
"""

import argparse
import json

import keras
import numpy as np
from keras import layers

import tfvamp
from tfvamp.callbacks import EarlyStopping, WarmUp
from tfvamp.layers import DiagonalGaussian, GaussianSample, KLDivergence, VampPriorLayer
from tfvamp.losses import NegativeLogLikelihood

CLASSES = 10


def build_encoder(latent_dims: int) -> keras.Model:
    """q(z | x, y)."""
    image, label = keras.Input((28, 28, 1), name="image"), keras.Input((CLASSES,), name="label")
    h = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(image)
    h = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Concatenate()([layers.Flatten()(h), label])
    h = layers.Dense(64, activation="relu")(h)
    outputs = {name: layers.Dense(latent_dims, name=name)(h) for name in ("mean", "log_variance")}
    return keras.Model({"image": image, "label": label}, outputs, name="encoder")


def build_decoder(latent_dims: int) -> keras.Model:
    """p(x | z, y), logits."""
    z, label = keras.Input((latent_dims,), name="z"), keras.Input((CLASSES,), name="label")
    h = layers.Dense(7 * 7 * 64, activation="relu")(layers.Concatenate()([z, label]))
    h = layers.Reshape((7, 7, 64))(h)
    h = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(h)
    return keras.Model([z, label], layers.Conv2DTranspose(1, 3, padding="same")(h), name="decoder")


def build_vae(latent_dims: int, num_components: int) -> tuple[keras.Model, keras.Model, VampPriorLayer]:
    encoder, decoder = build_encoder(latent_dims), build_decoder(latent_dims)
    prior = VampPriorLayer(encoder, num_components, bounds={"image": (0.0, 1.0), "label": "softmax"})
    inputs = {"image": keras.Input((28, 28, 1), name="image"), "label": keras.Input((CLASSES,), name="label")}
    posterior = encoder(inputs)
    z = GaussianSample(seed=1)([posterior["mean"], posterior["log_variance"]])
    z = KLDivergence(prior)([posterior["mean"], posterior["log_variance"], z])
    return keras.Model(inputs, decoder([z, inputs["label"]]), name="vae"), decoder, prior


def sample(decoder: keras.Model, prior: VampPriorLayer, digits: np.ndarray, seed: int) -> np.ndarray:
    """One image [n, 28, 28, 1] of each digit asked for [n].

    p(z | y) is the mixture of the components whose pseudo-label is y.
    """
    rng = np.random.default_rng(seed)
    of_component = np.argmax(prior.clipped_pseudo_inputs()["label"], axis=1)
    chosen = np.array([rng.choice(np.flatnonzero(of_component == digit)) for digit in digits])
    components = prior.components()
    loc, log_variance = (
        keras.ops.take(values, chosen, axis=0) for values in (components.loc, components.log_variance)
    )
    z = DiagonalGaussian(loc, log_variance).sample(seed=(seed, 1))
    label = keras.ops.one_hot(digits, CLASSES)
    return np.asarray(keras.ops.sigmoid(decoder([z, label])))


def linear_classifier(images: np.ndarray, digits: np.ndarray) -> keras.Model:
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(CLASSES)])
    model.compile(
        keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(images, digits, batch_size=100, epochs=20, verbose=0)
    return model


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latent-dims", type=int, default=10)
    parser.add_argument("--num-components", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most this many images of each split")
    parser.add_argument("--pictures", help="file for ten samples of each digit, a .png")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    data = tfvamp.datasets.load("mnist5k", limit=options.limit)
    images, digits = {}, {}
    for split in ("train", "validation", "test"):
        images[split], digits[split] = data.split(split).array()
    given = {
        split: {"image": images[split], "label": keras.utils.to_categorical(digits[split], CLASSES)}
        for split in images
    }

    vae, decoder, prior = build_vae(options.latent_dims, options.num_components)
    prior.adapt(given["train"], seed=options.seed)
    vae.compile(keras.optimizers.Adam(1e-3), loss=NegativeLogLikelihood())
    vae.fit(
        given["train"],
        images["train"],
        batch_size=100,
        epochs=options.epochs,
        validation_data=(given["validation"], images["validation"]),
        callbacks=[EarlyStopping(patience=15, warmup=options.warmup), WarmUp(options.warmup)],
        verbose=2,
    )
    elbo = -vae.evaluate(given["test"], images["test"], batch_size=500, verbose=0, return_dict=True)["loss"]
    asked = np.repeat(np.arange(CLASSES), 100)
    drawn = sample(decoder, prior, asked, options.seed)
    classifier = linear_classifier(images["train"], digits["train"])

    def agreement(images, digits):
        return round(float(np.mean(classifier.predict(images, verbose=0).argmax(1) == digits)), 3)

    real = agreement(images["test"], digits["test"])
    print(
        json.dumps(
            {"test_elbo": round(float(elbo), 2), "agreement": agreement(drawn, asked), "on_real_digits": real}
        )
    )
    if options.pictures:
        ten = drawn.reshape(CLASSES, 100, 28, 28)[:, :10].transpose(0, 2, 1, 3).reshape(280, 280)
        keras.utils.save_img(options.pictures, ten[..., np.newaxis])


if __name__ == "__main__":
    main()
