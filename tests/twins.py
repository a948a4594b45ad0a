"""NumPy float64 twins of the formulas, written from the paper, sharing nothing with tfvamp."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.special


def diagonal_gaussian_log_prob(z, loc, log_variance):
    """log N(z; loc, diag(exp(log_variance))), summed over the last axis."""
    z, loc, log_variance = (np.asarray(a, np.float64) for a in (z, loc, log_variance))
    terms = np.log(2 * np.pi) + log_variance + (z - loc) ** 2 / np.exp(log_variance)
    return -0.5 * terms.sum(-1)


def mixture_log_prob(z, logits, loc, log_variance):
    """log sum_k softmax(logits)_k N(z; loc_k, ...), for z [S, D] and K components."""
    log_weights = np.asarray(logits, np.float64) - scipy.special.logsumexp(np.asarray(logits, np.float64))
    terms = diagonal_gaussian_log_prob(np.asarray(z)[:, None, :], loc, log_variance) + log_weights
    return scipy.special.logsumexp(terms, axis=1)


def bernoulli_log_prob(x, logits):
    """Sum of x log p + (1 - x) log(1 - p) over all but the first axis."""
    x, logits = np.asarray(x, np.float64), np.asarray(logits, np.float64)
    terms = x * scipy.special.log_expit(logits) + (1 - x) * scipy.special.log_expit(-logits)
    return terms.reshape(len(x), -1).sum(-1)


def discretized_logistic_log_prob(x, logits, log_scale, open_ends=True):
    """log P of each pixel's bin, elementwise: the logistic distribution function between the bin's edges."""
    x, logits, log_scale = (np.asarray(a, np.float64) for a in (x, logits, log_scale))
    loc = np.clip(scipy.special.expit(logits), 1 / 512, 511 / 512)
    scale = np.exp(np.clip(log_scale, -4.5, 0.0))
    lower = np.minimum(np.floor(256 * x), 255) / 256
    below, above = (lower - loc) / scale, (lower + 1 / 256 - loc) / scale
    if not open_ends:
        return np.log(scipy.special.expit(above) - scipy.special.expit(below) + 1e-7)
    below, above = np.where(lower == 0, -np.inf, below), np.where(lower == 255 / 256, np.inf, above)
    # In the upper half the difference of the small survival functions, not of numbers near 1.
    upper = scipy.special.expit(-below) - scipy.special.expit(-above)
    return np.log(np.where(below > 0, upper, scipy.special.expit(above) - scipy.special.expit(below)))


def gated_dense(x, value_kernel, value_bias, gate_kernel, gate_bias):
    """(W x + b) * sigmoid(V x + c)."""
    return (x @ value_kernel + value_bias) * scipy.special.expit(x @ gate_kernel + gate_bias)


class VAETwin:
    """The one-layer VAE with a VampPrior, from the weights of a model."""

    def __init__(self, model):
        self.weights = {v.path.removeprefix(f"{model.name}/"): v.numpy() for v in model.variables}
        self.weights = {name: value.astype(np.float64) for name, value in self.weights.items()}

    def layer(self, prefix, x):
        parts = ("value_kernel", "value_bias", "gate_kernel", "gate_bias")
        return gated_dense(x, *(self.weights[f"{prefix}/{part}"] for part in parts))

    def linear(self, prefix, x):
        return x @ self.weights[f"{prefix}/kernel"] + self.weights[f"{prefix}/bias"]

    def encoder(self, x):
        h = self.layer(
            "encoder/gated_2", self.layer("encoder/gated_1", x.reshape(len(x), -1).astype(np.float64))
        )
        return self.gaussian("encoder/posterior", h)

    def gaussian(self, prefix, h):
        return self.linear(f"{prefix}/loc", h), np.clip(self.linear(f"{prefix}/log_variance", h), -6.0, 2.0)

    def pixels_log_prob(self, x, head):
        """log p(x | .) from the output of each head: Bernoulli, or discretised logistic if there is a log-scale."""
        x = x.reshape(len(x), -1)
        pixels = head("decoder/pixels").reshape(x.shape)
        if "decoder/log_scale/kernel" not in self.weights:
            return bernoulli_log_prob(x, pixels)
        log_scale = head("decoder/log_scale").reshape(x.shape)
        return discretized_logistic_log_prob(x, pixels, log_scale).sum(-1)

    def log_likelihood(self, x, z):
        h = self.layer("decoder/gated_2", self.layer("decoder/gated_1", z))
        return self.pixels_log_prob(x, lambda head: self.linear(head, h))

    def prior_log_prob(self, z):
        pseudo_inputs = np.clip(self.weights["prior/pseudo_inputs"], 0.0, 1.0)
        logits = self.weights.get("prior/logits", np.zeros(len(pseudo_inputs)))
        return mixture_log_prob(z, logits, *self.encoder(pseudo_inputs))

    def terms(self, x, z):
        """Each log-density, [B]: of x and z under the model, and of z under q."""
        x, z = (np.asarray(a, np.float64) for a in (x, z))
        log_q = diagonal_gaussian_log_prob(z, *self.encoder(x))
        return {"x": self.log_likelihood(x, z), "p_z": self.prior_log_prob(z), "q_z": log_q}


class HVAETwin(VAETwin):
    """The two-layer HVAE with a VampPrior on z2, from the weights of a model."""

    def encoder_z1(self, x, z2):
        joint = [
            self.layer("encoder_z1/gated_x", x.reshape(len(x), -1)),
            self.layer("encoder_z1/gated_z2", z2),
        ]
        h = self.layer("encoder_z1/gated_joint", np.concatenate(joint, axis=1))
        return self.gaussian("encoder_z1/posterior", h)

    def log_likelihood(self, x, z2, z1):
        joint = [self.layer("decoder/gated_z1", z1), self.layer("decoder/gated_z2", z2)]
        h = self.layer("decoder/gated_joint", np.concatenate(joint, axis=1))
        return self.pixels_log_prob(x, lambda head: self.linear(head, h))

    def terms(self, x, z2, z1):
        """Each log-density, [B]: of x, z1 and z2 under the model, and of z1 and z2 under q."""
        x, z2, z1 = (np.asarray(a, np.float64) for a in (x, z2, z1))
        h = self.layer("prior_z1/gated_2", self.layer("prior_z1/gated_1", z2))
        return {
            "x": self.log_likelihood(x, z2, z1),
            "p_z1": diagonal_gaussian_log_prob(z1, *self.gaussian("prior_z1/posterior", h)),
            "p_z2": self.prior_log_prob(z2),
            "q_z1": diagonal_gaussian_log_prob(z1, *self.encoder_z1(x, z2)),
            "q_z2": diagonal_gaussian_log_prob(z2, *self.encoder(x)),
        }


def conv2d(x, kernel, stride=1):
    """A convolution [B, H, W, C]: tap t of k meets the pixel stride * i + t - k // 2 for the output i; zeros outside."""
    places = [range(0, size, stride) for size in x.shape[1:3]]
    result = np.zeros((len(x), *map(len, places), kernel.shape[-1]))
    for (i, top), (j, left) in itertools.product(*map(enumerate, places)):
        for tap in np.ndindex(*kernel.shape[:2]):
            row, column = top + tap[0] - kernel.shape[0] // 2, left + tap[1] - kernel.shape[1] // 2
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                result[:, i, j] += x[:, row, column] @ kernel[tap]
    return result


class ConvVAETwin(VAETwin):
    """The VAE of gated convolutions with a VampPrior."""

    def stack(self, prefix, maps, strides):
        for number, stride in enumerate(strides, start=1):
            value, gate = (
                conv2d(maps, self.weights[f"{prefix}/conv_{number}/{part}_kernel"], stride)
                + self.weights[f"{prefix}/conv_{number}/{part}_bias"]
                for part in ("value", "gate")
            )
            maps = value * scipy.special.expit(gate)
        return maps

    def encoder(self, x):
        return self.gaussian(
            "encoder/posterior", self.stack("encoder", x, (1, 2, 1, 2, 1)).reshape(len(x), -1)
        )

    def conv_head(self, head, maps):
        return conv2d(maps, self.weights[f"{head}/kernel"]) + self.weights[f"{head}/bias"]

    def log_likelihood(self, x, *latents):
        """Latents from the top down."""
        joint = [self.layer(f"decoder/gated_{number}", z) for number, z in enumerate(latents, start=1)]
        maps = self.layer("decoder/gated_image", np.concatenate(joint, axis=1)).reshape(x.shape)
        maps = self.stack("decoder", maps, (1, 1, 1, 1))
        return self.pixels_log_prob(x, lambda head: self.conv_head(head, maps))


class ConvHVAETwin(ConvVAETwin, HVAETwin):
    """The convHVAE with a VampPrior on z2."""

    def encoder_z1(self, x, z2):
        of_x = self.stack("encoder_z1", x, (1, 2, 1, 2, 1)).reshape(len(x), -1)
        joint = np.concatenate([of_x, self.layer("encoder_z1/gated_z2", z2)], axis=1)
        return self.gaussian("encoder_z1/posterior", self.layer("encoder_z1/gated_joint", joint))


class PixelHVAETwin(ConvHVAETwin):
    """The PixelHVAE of one channel with a VampPrior on z2."""

    def log_likelihood(self, x, z2, z1):
        of_z = [
            self.layer(f"decoder/gated_{name}", z).reshape(x.shape) for name, z in (("z1", z1), ("z2", z2))
        ]
        maps = np.concatenate([x, *of_z], axis=-1)
        for number in range(1, 9):
            kernel = self.weights[f"decoder/conv_{number}/kernel"].copy()
            pixels = 1 if number == 1 else 64  # the conditions after them are seen whole
            kernel[1, 2, :pixels], kernel[2, :, :pixels] = 0.0, 0.0
            if number == 1:
                kernel[1, 1, 0] = 0.0
            moments = {
                name: self.weights[f"decoder/normalization_{number}/{name}"]
                for name in ("moving_mean", "moving_variance", "gamma", "beta")
            }
            maps = (conv2d(maps, kernel) - moments["moving_mean"]) / np.sqrt(
                moments["moving_variance"] + 1e-5
            )
            maps = np.maximum(maps * moments["gamma"] + moments["beta"], 0.0)
        if "decoder/log_scale/kernel" in self.weights:  # the heads of grey images have no bias
            return self.pixels_log_prob(x, lambda head: conv2d(maps, self.weights[f"{head}/kernel"]))
        return self.pixels_log_prob(x, lambda head: self.conv_head(head, maps))
