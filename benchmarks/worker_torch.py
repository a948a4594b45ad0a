"""Times a train step of the same convolutional models written in PyTorch (CPU); runs in an environment of its own."""

from __future__ import annotations

import math
import time

import torch
from harness import THREADS, serve
from torch import nn
from torch.nn import functional

torch.set_num_threads(int(THREADS))
torch.manual_seed(0)
_built: dict = {}


class Gated(nn.Module):
    """(W x + b) * sigmoid(V x + c) in one product or convolution."""

    def __init__(self, both):
        super().__init__()
        self.both = both

    def forward(self, x):
        value, gate = self.both(x).chunk(2, dim=1)
        return value * torch.sigmoid(gate)


def dense(fan_in, units):
    return Gated(nn.Linear(fan_in, 2 * units))


def conv(fan_in, filters, size, stride=1):
    return Gated(nn.Conv2d(fan_in, 2 * filters, size, stride, size // 2))


def stack(sizes):
    layers, channels = [], 1
    for filters, size, stride in sizes:
        layers.append(conv(channels, filters, size, stride))
        channels = filters
    return nn.Sequential(*layers)


class Gaussian(nn.Module):
    def __init__(self, fan_in, latents):
        super().__init__()
        self.both = nn.Linear(fan_in, 2 * latents)

    def forward(self, h):
        loc, log_variance = self.both(h).chunk(2, dim=-1)
        return loc, log_variance.clamp(-6.0, 2.0)


def log_normal(z, loc, log_variance):
    return -0.5 * (math.log(2 * math.pi) + log_variance + (z - loc) ** 2 * torch.exp(-log_variance)).sum(-1)


class MaskedConv(nn.Conv2d):
    """A masked 3x3 convolution; of the inputs the first `pixels` are masked."""

    def __init__(self, inputs, filters, strict, pixels):
        super().__init__(inputs, filters, 3, padding=1, bias=False)
        mask = torch.ones_like(self.weight)
        mask[:, :pixels, 1, 2], mask[:, :pixels, 2] = 0, 0
        if strict:
            mask[:, :pixels, 1, 1] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return functional.conv2d(x, self.weight * self.mask, padding=1)


class Model(nn.Module):
    """convHVAE or PixelHVAE with a VampPrior."""

    def __init__(self, kind, sizes):
        super().__init__()
        latents, hidden, features = sizes["D"], sizes["H"], 294
        self.kind = kind
        self.encoder = stack(((32, 7, 1), (32, 3, 2), (64, 5, 1), (64, 3, 2), (6, 3, 1)))
        self.q_z2 = Gaussian(features, latents)
        self.encoder_z1 = stack(((32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (6, 3, 1)))
        self.of_z2, self.joint = dense(latents, features), dense(2 * features, hidden)
        self.q_z1 = Gaussian(hidden, latents)
        self.prior_z1 = nn.Sequential(
            dense(latents, hidden), dense(hidden, hidden), Gaussian(hidden, latents)
        )
        self.pseudo_inputs = nn.Parameter(0.5 + 0.02 * torch.randn(sizes["K"], 1, 28, 28))
        if kind == "convhvae":
            self.decoder_z1, self.decoder_z2 = dense(latents, hidden), dense(latents, hidden)
            self.image = dense(2 * hidden, sizes["X"])
            self.convolutions = nn.Sequential(stack(((64, 3, 1),) * 4), nn.Conv2d(64, 1, 1))
        else:
            self.decoder_z1, self.decoder_z2 = dense(latents, sizes["X"]), dense(latents, sizes["X"])
            layers: list[nn.Module] = []
            for index in range(8):
                layers += [
                    MaskedConv(64 if index else 3, 64, index == 0, 64 if index else 1),
                    nn.BatchNorm2d(64),
                    nn.ReLU(),
                ]
            self.convolutions = nn.Sequential(*layers, nn.Conv2d(64, 1, 1))

    def q2(self, x):
        return self.q_z2(self.encoder(x).flatten(1))

    def logits(self, x, z2, z1):
        h1, h2 = self.decoder_z1(z1), self.decoder_z2(z2)
        if self.kind == "convhvae":
            maps = self.image(torch.cat([h1, h2], 1)).reshape(-1, 1, 28, 28)
        else:
            maps = torch.cat([x, h1.reshape(-1, 1, 28, 28), h2.reshape(-1, 1, 28, 28)], 1)
        return self.convolutions(maps)

    def forward(self, x):
        q2 = self.q2(x)
        z2 = q2[0] + torch.exp(0.5 * q2[1]) * torch.randn_like(q2[0])
        q1 = self.q_z1(self.joint(torch.cat([self.encoder_z1(x).flatten(1), self.of_z2(z2)], 1)))
        z1 = q1[0] + torch.exp(0.5 * q1[1]) * torch.randn_like(q1[0])
        loc, log_variance = self.q2(self.pseudo_inputs.clamp(0, 1))
        precision = torch.exp(-log_variance)
        squares = z2**2 @ precision.T - 2 * z2 @ (loc * precision).T + (loc**2 * precision).sum(-1)
        log_p2 = torch.logsumexp(-0.5 * (squares + log_variance.sum(-1)), -1)
        kl = log_normal(z2, *q2) - log_p2 + log_normal(z1, *q1) - log_normal(z1, *self.prior_z1(z2))
        nll = functional.binary_cross_entropy_with_logits(self.logits(x, z2, z1), x, reduction="none")
        return (nll.flatten(1).sum(-1) + kl).mean()


def train_step(sizes):
    """One step: forward, backward, Adam (without the gradients' normalisation)."""
    key = sizes["model"]
    if key not in _built:
        model = Model(key, sizes)
        _built[key] = model, torch.optim.Adam(model.parameters(), lr=1e-4)
    model, adam = _built[key]
    x = torch.randint(0, 2, (sizes["B"], 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()

    def step():
        adam.zero_grad()
        model(x).backward()
        adam.step()

    step()
    start = time.perf_counter()
    for _ in range(sizes["repeat"]):
        step()
    return (time.perf_counter() - start) / sizes["repeat"]


if __name__ == "__main__":
    serve({"train_step": train_step})
