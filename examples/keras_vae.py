"""The convolutional VAE that every Keras user starts from, with the prior as one line.

The encoder returns [mean, log_variance, z]; `KLDivergence` puts the divergence into the loss, and `fit` does
the rest. With the standard normal prior and with a VampPrior, on 5,000 real digits:

    python examples/keras_vae.py --prior standard
    python examples/keras_vae.py --prior vamp
"""

import argparse
import json

import keras
import numpy as np
from keras import layers

import tfvamp
from tfvamp.callbacks import DrawSamples, EarlyStopping, WarmUp
from tfvamp.layers import GaussianSample, KLDivergence, StandardNormalPriorLayer, VampPriorLayer
from tfvamp.losses import NegativeLogLikelihood


def build_encoder(latent_dims: int) -> keras.Model:
    images = keras.Input((28, 28, 1))
    h = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(images)
    h = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Dense(64, activation="relu")(layers.Flatten()(h))
    mean = layers.Dense(latent_dims, name="mean")(h)
    log_variance = layers.Dense(latent_dims, name="log_variance")(h)
    z = GaussianSample(seed=1)([mean, log_variance])
    return keras.Model(images, [mean, log_variance, z], name="encoder")


def build_decoder(latent_dims: int) -> keras.Model:
    z = keras.Input((latent_dims,))
    h = layers.Dense(7 * 7 * 64, activation="relu")(z)
    h = layers.Reshape((7, 7, 64))(h)
    h = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(h)
    return keras.Model(z, layers.Conv2DTranspose(1, 3, padding="same")(h), name="decoder")  # logits


def build_vae(
    prior_name: str, latent_dims: int, num_components: int
) -> tuple[keras.Model, keras.Model, layers.Layer]:
    encoder, decoder = build_encoder(latent_dims), build_decoder(latent_dims)
    if prior_name == "standard":
        prior = StandardNormalPriorLayer(latent_dims)
    else:  # the two lines that change
        prior = VampPriorLayer(encoder, num_components, initial=keras.initializers.RandomNormal(0.05, 0.01))
    images = keras.Input((28, 28, 1))
    z = KLDivergence(prior)(encoder(images))
    return keras.Model(images, decoder(z), name="vae"), decoder, prior


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=["standard", "vamp"], default="vamp")
    parser.add_argument("--latent-dims", type=int, default=16)
    parser.add_argument("--num-components", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most this many images of each split")
    parser.add_argument("--pictures", help="folder for samples, one picture every 10 epochs")
    parser.add_argument("--save", help="file NAME.keras for the trained model")
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    digits = tfvamp.datasets.load("mnist5k", limit=options.limit)
    train, validation, test = (digits.split(name).array()[0] for name in ("train", "validation", "test"))

    vae, decoder, prior = build_vae(options.prior, options.latent_dims, options.num_components)
    vae.compile(keras.optimizers.Adam(1e-3), loss=NegativeLogLikelihood())
    callbacks = [EarlyStopping(patience=15, warmup=options.warmup), WarmUp(options.warmup)]
    if options.pictures:

        def sample(n, seed):
            return keras.ops.sigmoid(decoder(prior.sample(n, seed)))

        callbacks.append(DrawSamples(options.pictures, sample))
    vae.fit(
        train,
        train,
        batch_size=100,
        epochs=options.epochs,
        validation_data=(validation, validation),
        callbacks=callbacks,
        verbose=2,
    )
    passes = [vae.evaluate(test, test, batch_size=500, verbose=0, return_dict=True) for _ in range(10)]
    elbo, kl = -np.mean([result["loss"] for result in passes]), np.mean([result["kl"] for result in passes])
    print(json.dumps({"prior": options.prior, "test_elbo": round(float(elbo), 2), "kl": round(float(kl), 2)}))
    if options.save:
        vae.save(options.save)


if __name__ == "__main__":
    main()
