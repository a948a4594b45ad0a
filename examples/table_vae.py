"""A VAE on a table: 178 wines, 13 chemical measurements, two latents, a prior whose components are clusters.

The decoder ends in a normal density with one learned standard deviation per column. The prior is the VampPrior mixture
model, whose few wide components can be clusters; the cultivars of the wines are not shown to the model. Less than a minute:

    python examples/table_vae.py --picture wines.png
"""

import argparse
import json

import keras
import matplotlib.figure
import numpy as np
from keras import layers
from mlxtend.data import wine_data

from tfvamp.callbacks import WarmUp
from tfvamp.layers import (
    GaussianLikelihood,
    GaussianPosterior,
    GaussianSample,
    KLDivergence,
    ReconstructionLoss,
    VampMixturePriorLayer,
)


def build_vae(columns: int, num_components: int, table: np.ndarray):
    encoder = keras.Sequential(
        [keras.Input((columns,)), layers.Dense(32, activation="tanh"), GaussianPosterior(2)], name="encoder"
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), layers.Dense(32, activation="tanh"), layers.Dense(columns)], name="decoder"
    )
    prior = VampMixturePriorLayer(encoder, num_components, initial_variance=0.1)
    prior.adapt(table)  # starts the pseudo-inputs at rows of the table
    x = keras.Input((columns,))
    posterior = encoder(x)
    z = KLDivergence(prior)([posterior, GaussianSample(seed=1)(posterior)])
    likelihood = GaussianLikelihood((columns,), scale="learned-per-column")
    vae = keras.Model(x, ReconstructionLoss()([likelihood(decoder(z)), x]))
    return vae, encoder, prior, lambda z: likelihood(decoder(z))


def agreement(components: np.ndarray, cultivars: np.ndarray) -> float:
    """The share of rows whose cultivar is the most frequent one of their component."""
    right = 0
    for component in np.unique(components):
        right += np.bincount(cultivars[components == component]).max()
    return right / len(cultivars)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-components", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--picture", help="file for the maps, a .png")
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    rows, cultivars = wine_data()
    table = ((rows - rows.mean(axis=0)) / rows.std(axis=0)).astype("float32")
    vae, encoder, prior, likelihood = build_vae(table.shape[1], options.num_components, table)
    vae.compile(keras.optimizers.Adam(2e-3))
    history = vae.fit(
        table,
        batch_size=32,
        epochs=options.epochs,
        callbacks=[WarmUp(max(1, options.epochs // 4))],
        verbose=0,
    )

    means = encoder(table).mean().numpy()
    components = prior.responsibilities(means).numpy().argmax(axis=1)
    sampled = likelihood(prior.sample(len(table), seed=1)).sample(seed=(2, 0)).numpy()
    print(
        json.dumps(
            {
                "elbo": round(-history.history["loss"][-1], 2),
                "components_in_use": len(np.unique(components)),
                "agreement_with_cultivars": round(agreement(components, cultivars), 3),
                "correlation_of_two_columns": {
                    "table": round(float(np.corrcoef(table[:, 5], table[:, 6])[0, 1]), 2),
                    "sampled": round(float(np.corrcoef(sampled[:, 5], sampled[:, 6])[0, 1]), 2),
                },
            },
            indent=1,
        )
    )
    if options.picture:
        figure = matplotlib.figure.Figure(figsize=(9.5, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        low, high = means.min(axis=0) - 0.5, means.max(axis=0) + 0.5
        x, y = (np.linspace(start, stop, 150) for start, stop in zip(low, high, strict=True))
        grid = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
        left.contourf(x, y, np.sqrt(np.exp(prior.log_prob(grid).numpy())), levels=14, cmap="Greys", alpha=0.8)
        left.scatter(*means.T, c=cultivars, cmap="viridis", s=14)
        left.set(title="posterior means by cultivar, over the prior", xlabel="z1", ylabel="z2")
        right.scatter(sampled[:, 5], sampled[:, 6], s=12, alpha=0.6, label="sampled", color="tab:orange")
        right.scatter(table[:, 5], table[:, 6], s=12, alpha=0.6, label="table", color="tab:blue")
        right.set(title="two of 13 columns", xlabel="total phenols (std.)", ylabel="flavanoids (std.)")
        right.legend()
        figure.savefig(options.picture, dpi=80)


if __name__ == "__main__":
    main()
