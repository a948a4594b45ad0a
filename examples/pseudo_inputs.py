"""Shows what the pseudo-inputs of a VampPrior learn, from their start to the end of training.

Trains a VAE on 5,000 real digits, keeps the pseudo-inputs after some epochs, and draws those whose components are used
most, above an image that each of these components generates. Some minutes:

    python examples/pseudo_inputs.py --picture pseudo_inputs.png
"""

import argparse
import json

import keras
import matplotlib.figure
import numpy as np

import tfvamp
from tfvamp.callbacks import EarlyStopping, WarmUp

SHOWN = 12  # components


class KeepPseudoInputs(keras.callbacks.Callback):
    """Keeps the pseudo-inputs before training and after some epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.kept = epochs, {}

    def on_train_begin(self, logs=None):
        self.kept[0] = self.model.prior.clipped_pseudo_inputs().numpy()

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 in self.epochs:
            self.kept[epoch + 1] = self.model.prior.clipped_pseudo_inputs().numpy()


def draw(path: str, rows: dict[str, np.ndarray]) -> None:
    """Draws rows of images [n, H, W, 1], each with its contrast stretched."""
    figure = matplotlib.figure.Figure(figsize=(SHOWN * 0.75 + 1.6, len(rows) * 0.8), layout="constrained")
    panels = figure.subplots(len(rows), SHOWN)
    for line, (name, images) in zip(panels, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(image[..., 0], cmap="gray")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=80)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--limit", type=int, help="maximum number of images of each split")
    parser.add_argument("--picture", help="file for the pseudo-inputs, a .png")
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    digits = tfvamp.datasets.load("mnist5k", limit=options.limit)
    train, validation, test = (digits.split(name).array()[0] for name in ("train", "validation", "test"))
    model = tfvamp.models.VAE(
        prior="vamp",
        components=options.components,
        pseudo_inputs=keras.initializers.RandomNormal(0.05, 0.01, seed=0),
    )
    model.compile(keras.optimizers.Adam(5e-4))
    keep = KeepPseudoInputs((5, 20, 60, options.epochs))
    stop = EarlyStopping(patience=20, warmup=options.warmup, monitor="val_elbo")
    model.fit(
        train,
        batch_size=100,
        epochs=options.epochs,
        validation_data=(validation,),
        callbacks=[WarmUp(options.warmup), stop, keep],
        verbose=2,
    )
    keep.kept[stop.best_epoch] = model.prior.clipped_pseudo_inputs().numpy()

    shares = model.prior.responsibilities(model.encoder(test).mean()).numpy().mean(axis=0)
    effective = float(np.exp(-np.sum(shares * np.log(shares + 1e-30))))
    most_used = np.argsort(shares)[::-1][:SHOWN]
    z = model.prior.components().mean().numpy()[most_used]
    rows = {f"epoch {epoch}": images[most_used] for epoch, images in sorted(keep.kept.items())}
    rows["generated"] = model.decoder(z).mean().numpy()
    print(
        json.dumps(
            {
                "best_epoch": stop.best_epoch,
                "components": options.components,
                "effective_number": round(effective, 1),
                "share_of_the_shown": round(float(shares[most_used].sum()), 3),
            }
        )
    )
    if options.picture:
        draw(options.picture, rows)


if __name__ == "__main__":
    main()
