"""NumPy float64 twins of the formulas, written from the paper, sharing nothing with tfvamp."""

from __future__ import annotations

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


def gated_dense(x, value_kernel, value_bias, gate_kernel, gate_bias):
    """(W x + b) * sigmoid(V x + c)."""
    return (x @ value_kernel + value_bias) * scipy.special.expit(x @ gate_kernel + gate_bias)


class VAETwin:
    """The one-layer VAE with a VampPrior, from the weights of a model."""

    def __init__(self, model):
        self.weights = {
            v.path.split("/", 1)[-1] if v.path.startswith(("vae", "hvae")) else v.path: v.numpy()
            for v in model.variables
        }
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
        log_variance = np.clip(self.linear("encoder/posterior/log_variance", h), -6.0, 2.0)
        return self.linear("encoder/posterior/loc", h), log_variance

    def decoder_logits(self, z):
        return self.linear("decoder/pixels", self.layer("decoder/gated_2", self.layer("decoder/gated_1", z)))

    def parts(self, x, z):
        """log p(x | z) and log q(z | x) - log p(z) for x [B, ...] and z [B, D]."""
        loc, log_variance = self.encoder(x)
        pseudo_inputs = np.clip(self.weights["prior/pseudo_inputs"], 0.0, 1.0)
        logits = self.weights.get("prior/logits", np.zeros(len(pseudo_inputs)))
        z = np.asarray(z, np.float64)
        prior = mixture_log_prob(z, logits, *self.encoder(pseudo_inputs))
        reconstruction = bernoulli_log_prob(x.reshape(len(x), -1), self.decoder_logits(z))
        return reconstruction, diagonal_gaussian_log_prob(z, loc, log_variance) - prior


class HVAETwin(VAETwin):
    """The two-layer HVAE with a VampPrior on z2, from the weights of a model."""

    def gaussian(self, prefix, h):
        return self.linear(f"{prefix}/loc", h), np.clip(self.linear(f"{prefix}/log_variance", h), -6.0, 2.0)

    def terms(self, x, z2, z1):
        """Each log-density, [B]: of x, z1 and z2 under the model, and of z1 and z2 under q."""
        x, z2, z1 = (np.asarray(a, np.float64) for a in (x, z2, z1))
        pixels = x.reshape(len(x), -1)
        joint = np.concatenate(
            [self.layer("encoder_z1/gated_x", pixels), self.layer("encoder_z1/gated_z2", z2)], axis=1
        )
        q1 = self.gaussian("encoder_z1/posterior", self.layer("encoder_z1/gated_joint", joint))
        h = self.layer("prior_z1/gated_2", self.layer("prior_z1/gated_1", z2))
        p1 = self.gaussian("prior_z1/posterior", h)
        joint = np.concatenate(
            [self.layer("decoder/gated_z1", z1), self.layer("decoder/gated_z2", z2)], axis=1
        )
        logits = self.linear("decoder/pixels", self.layer("decoder/gated_joint", joint))
        pseudo_inputs = np.clip(self.weights["prior/pseudo_inputs"], 0.0, 1.0)
        weights = self.weights.get("prior/logits", np.zeros(len(pseudo_inputs)))
        return {
            "x": bernoulli_log_prob(pixels, logits),
            "p_z1": diagonal_gaussian_log_prob(z1, *p1),
            "p_z2": mixture_log_prob(z2, weights, *self.encoder(pseudo_inputs)),
            "q_z1": diagonal_gaussian_log_prob(z1, *q1),
            "q_z2": diagonal_gaussian_log_prob(z2, *self.encoder(x)),
        }
