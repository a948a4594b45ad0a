"""Times pythae's VAMP with the same networks (PyTorch, CPU); runs in an environment of its own."""

from __future__ import annotations

import time

import torch
from harness import THREADS, serve
from pythae.models import VAMP, VAMPConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import nn

torch.set_num_threads(int(THREADS))
torch.manual_seed(0)
_built: dict = {}


class Gated(nn.Module):
    """(W x + b) * sigmoid(V x + c), in one product, as in tfvamp."""

    def __init__(self, fan_in, units):
        super().__init__()
        self.both = nn.Linear(fan_in, 2 * units)

    def forward(self, x):
        value, gate = self.both(x).chunk(2, dim=-1)
        return value * torch.sigmoid(gate)


class Encoder(BaseEncoder):
    def __init__(self, sizes):
        super().__init__()
        self.hidden = nn.Sequential(Gated(sizes["X"], sizes["H"]), Gated(sizes["H"], sizes["H"]))
        self.loc, self.log_variance = nn.Linear(sizes["H"], sizes["D"]), nn.Linear(sizes["H"], sizes["D"])

    def forward(self, x):
        h = self.hidden(x.reshape(x.shape[0], -1))
        return ModelOutput(embedding=self.loc(h), log_covariance=self.log_variance(h).clamp(-6.0, 2.0))


class Decoder(BaseDecoder):
    def __init__(self, sizes):
        super().__init__()
        self.net = nn.Sequential(
            Gated(sizes["D"], sizes["H"]),
            Gated(sizes["H"], sizes["H"]),
            nn.Linear(sizes["H"], sizes["X"]),
            nn.Sigmoid(),
        )

    def forward(self, z):
        return ModelOutput(reconstruction=self.net(z).reshape(-1, 1, 28, 28))


def model(sizes):
    if "model" not in _built:
        config = VAMPConfig(
            input_dim=(1, 28, 28),
            latent_dim=sizes["D"],
            number_components=sizes["K"],
            reconstruction_loss="bce",
        )
        _built["model"] = VAMP(config, encoder=Encoder(sizes), decoder=Decoder(sizes))
        _built["adam"] = torch.optim.Adam(_built["model"].parameters(), lr=1e-4)
    return _built["model"]


def images(count):
    return torch.randint(0, 2, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float()


def train_step(sizes):
    """One step: forward, backward, Adam (without the gradients' normalisation)."""
    vamp, x = model(sizes), images(sizes["B"])
    vamp.train()

    def step():
        _built["adam"].zero_grad()
        vamp({"data": x}, epoch=1).loss.backward()
        _built["adam"].step()

    step()
    start = time.perf_counter()
    for _ in range(sizes["repeat"]):
        step()
    return (time.perf_counter() - start) / sizes["repeat"]


def log_likelihood(sizes):
    """One image by its get_nll, without recording gradients."""
    vamp, x = model(sizes), images(sizes["repeat"])
    vamp.eval()
    start = time.perf_counter()
    with torch.no_grad():
        vamp.get_nll(x, n_samples=sizes["S"], batch_size=sizes["batch_size"])
    return (time.perf_counter() - start) / sizes["repeat"]


if __name__ == "__main__":
    serve({"train_step": train_step, "log_likelihood": log_likelihood})
