"""The MQVAE of models/vqvae.py and its joint step in PyTorch; imported only where torch is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn

_LAYOUTS = {"PyTorch": torch.contiguous_format, "PyTorch, channels last": torch.channels_last}


def peer_functions(
    config: ConfigDict, pixels: np.ndarray, threads: int
) -> dict[tuple[str, str], Callable[[], Any]]:
    """What PyTorch is timed with.

    Args:
      config: validated; an MQVAE with the hyper-net `mlp`.
      pixels: u8[B, H, W, 3].
      threads: that it may take.

    Returns:
      Functions of nothing by (program, what it does), for each layout in memory.
    """
    torch.set_num_threads(threads)
    functions = {}
    for name, layout in _LAYOUTS.items():
        net = Net(config).to(memory_format=layout)
        images = _images(pixels).contiguous(memory_format=layout)
        indices = net.encode(pixels, layout)
        functions |= {
            (name, "joint"): _joint_step(net, config, images),
            (name, "encode"): lambda n=net, m=layout: n.encode(pixels, m),
            (name, "decode"): lambda n=net, i=indices: n.decode(i),
        }
    return functions


class Block(nn.Module):
    """x + BN(1x1(ReLU(BN(3x3(ReLU(x))))))."""

    def __init__(self, width: int):
        super().__init__()
        layers = []
        for size in (3, 1):
            convolution = nn.Conv2d(width, width, size, padding=size // 2, bias=False)
            layers += [nn.ReLU(), convolution, nn.BatchNorm2d(width)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """f32[B, C, h, w] -> f32[B, C, h, w]."""
        return x + self.layers(x)


class Net(nn.Module):
    """Encoder, decoder and hyper-net.

    Attributes:
      encoder: f32[B, 3, H, W] -> z f32[B, D, h, w].
      decoder: f32[B, D, h, w] -> f32[B, 3, H, W].
      embedding: f32[K, D_e].
      hyper_net: f32[K, D_e] -> f32[K, D].
    """

    def __init__(self, config: ConfigDict):
        super().__init__()
        model, codebook = config.model, config.codebook
        channels, width, dim = model.channels, model.channels[-1], codebook.dim
        blocks = lambda: [Block(width) for _ in range(model.blocks)]  # noqa: E731
        layers = []
        for before, after in zip((3, *channels[:-1]), channels, strict=True):
            strided = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [strided, nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), *blocks()]
        self.encoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, dim, 1))
        layers = [nn.Conv2d(dim, width, 1), *blocks(), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
        for before, after in zip(channels[::-1], (*channels[-2::-1], 3), strict=True):
            # Of them the last one alone, to pixels, has a bias.
            up = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=after == 3)
            layers += [nn.BatchNorm2d(before), nn.ReLU(), up]
        self.decoder = nn.Sequential(*layers)
        self.embedding = nn.Parameter(torch.randn(codebook.size, codebook.embedding_dim))
        self.hyper_net = nn.Sequential(
            nn.Linear(codebook.embedding_dim, codebook.hidden),
            nn.Tanh(),
            nn.Linear(codebook.hidden, dim),
        )

    def codebook(self) -> torch.Tensor:
        """f32[K, D]."""
        return self.hyper_net(self.embedding)

    @torch.no_grad()
    def encode(self, pixels: np.ndarray, layout: torch.memory_format) -> np.ndarray:
        """u8[B, H, W, 3] -> i64[B, h, w]."""
        self.eval()
        z = self.encoder(_images(pixels).contiguous(memory_format=layout))
        return _nearest(z, self.codebook()).numpy()

    @torch.no_grad()
    def decode(self, indices: np.ndarray) -> np.ndarray:
        """i64[B, h, w] -> u8[B, H, W, 3]."""
        self.eval()
        z_q = self.codebook()[torch.from_numpy(indices)].permute(0, 3, 1, 2)
        pixels = (self.decoder(z_q) + 1) * 127.5
        return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def _images(pixels):
    """u8[B, H, W, 3] -> f32[B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _nearest(z, codebook):
    """Indices i64[B, h, w] of the codewords nearest to z f32[B, D, h, w]."""
    rows = z.permute(0, 2, 3, 1)
    return torch.argmin(codebook.square().sum(-1) - 2 * (rows @ codebook.T), dim=-1)


def _joint_step(net, config, images):
    """One backward pass for theta and phi, and two updates by Adam."""
    theta = [*net.encoder.parameters(), *net.decoder.parameters()]
    phi = [net.embedding, *net.hyper_net.parameters()]
    optimizers = [torch.optim.Adam(params, lr=1e-4) for params in (theta, phi)]

    def step():
        net.train()
        z, codebook = net.encoder(images), net.codebook()
        with torch.no_grad():
            indices = _nearest(z, codebook)
        z_q = codebook[indices].permute(0, 3, 1, 2)
        decoded = net.decoder(z + (z_q - z).detach())
        mean = nn.functional.mse_loss
        loss = mean(decoded, images) + config.train.quantization_weight * mean(z, z_q)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step
