"""Volumetric VQ-VAE: a 1 mm volume to codes on an 8 mm grid and back.

No layer takes statistics over space (no normalisation), so a code depends on nothing beyond its receptive field,
a crop decodes as it would inside the whole head, and nothing of a blanked region can travel through a global mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8


@dataclass(frozen=True)
class VQVAEConfig:
    """Shape of a VQ-VAE.

    Attributes
    ----------
    channels : tuple of int
        Features at 2, 4 and 8 mm.
    encoder_blocks, decoder_blocks : tuple of int
        Residual blocks at 2, 4 and 8 mm.
    codes, code_dim : int
        Size of the codebook and of one code vector.
    """

    channels: tuple[int, int, int] = (32, 64, 128)
    encoder_blocks: tuple[int, int, int] = (0, 1, 1)
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    codes: int = 1024
    code_dim: int = 16

    def as_dict(self) -> dict:
        """Plain values, for the weights file."""
        return asdict(self)


def skull_preset() -> VQVAEConfig:
    """The non-brain VQ-VAE, which has to draw faces."""
    return VQVAEConfig()


def brain_preset() -> VQVAEConfig:
    """The brain VQ-VAE, which only conditions: half the features."""
    return VQVAEConfig(channels=(16, 32, 64), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), codes=512)


def pixel_unshuffle3d(x: Tensor) -> Tensor:
    """Eight voxels of a 2 x 2 x 2 cube to eight channels: (B, C, D, H, W) -> (B, 8 C, D/2, H/2, W/2)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * 8, d // 2, h // 2, w // 2)


def pixel_shuffle3d(x: Tensor) -> Tensor:
    """Inverse of `pixel_unshuffle3d`."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // 8, d * 2, h * 2, w * 2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions beside an identity, silent at the start of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class Encoder(nn.Module):
    """(B, 2, D, H, W): intensity and known-mask -> (B, code_dim, D/8, H/8, W/8)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        b2, b4, b8 = config.encoder_blocks
        self.stem = nn.Conv3d(16, c2, 3, padding=1)
        self.layers = nn.Sequential(
            _blocks(c2, b2), nn.SiLU(), nn.Conv3d(c2, c4, 4, stride=2, padding=1),
            _blocks(c4, b4), nn.SiLU(), nn.Conv3d(c4, c8, 4, stride=2, padding=1),
            _blocks(c8, b8), nn.SiLU(), nn.Conv3d(c8, config.code_dim, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.stem(pixel_unshuffle3d(x)))


class Decoder(nn.Module):
    """(B, code_dim, D/8, H/8, W/8) -> (B, 1, D, H, W)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        b2, b4, b8 = config.decoder_blocks
        self.layers = nn.Sequential(
            nn.Conv3d(config.code_dim, c8, 3, padding=1), _blocks(c8, b8),
            nn.SiLU(), nn.ConvTranspose3d(c8, c4, 4, stride=2, padding=1), _blocks(c4, b4),
            nn.SiLU(), nn.ConvTranspose3d(c4, c2, 4, stride=2, padding=1), _blocks(c2, b2),
            nn.SiLU(), nn.Conv3d(c2, 8, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle3d(self.layers(x))


class Codebook(nn.Module):
    """Nearest-code quantisation; codes follow the moving average of what they stand for, dead ones are born again.

    Source: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1, for the moving average.
    """

    def __init__(self, codes: int, dim: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", torch.randn(codes, dim))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.vectors.clone())

    def nearest(self, z: Tensor) -> Tensor:
        """Indices (N,) of the codes nearest to vectors (N, dim)."""
        return (self.vectors.square().sum(1) - 2 * z @ self.vectors.T).argmin(1)

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Start from vectors (N, dim) drawn at random out of what the encoder yields."""
        chosen = z[torch.randint(len(z), (len(self.vectors),), device=z.device)]
        self.vectors.copy_(chosen + 0.01 * chosen.std() * torch.randn_like(chosen))
        self.sums.copy_(self.vectors)
        self.counts.fill_(1.0)

    def lookup(self, indices: Tensor) -> Tensor:
        """Code vectors (..., dim) of indices (...)."""
        return F.embedding(indices, self.vectors)

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor) -> None:
        """Move the codes towards the vectors (N, dim) assigned to them; restart those hardly ever used."""
        counts = torch.bincount(indices, minlength=len(self.counts)).to(z.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, z)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = self.counts < 0.02
        if dead.any():
            chosen = z[torch.randint(len(z), (int(dead.sum()),))]
            self.counts[dead] = 0.5
            self.sums[dead] = 0.5 * chosen
        self.vectors.copy_(self.sums / self.counts.clamp_min(1e-6)[:, None])


class VQVAE(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.codebook = Codebook(config.codes, config.code_dim)
        self.decoder = Decoder(config)

    def features(self, volume: Tensor, known: Tensor) -> Tensor:
        """What the encoder yields before quantisation, (B, code_dim, D/8, H/8, W/8)."""
        return self.encoder(torch.cat([torch.where(known > 0, volume, 0), known], 1))

    def encode(self, volume: Tensor, known: Tensor) -> Tensor:
        """Codes of a volume.

        Parameters
        ----------
        volume : Tensor (B, 1, D, H, W)
            Intensities 0 to 1; what stands where ``known`` is 0 is not read.
        known : Tensor (B, 1, D, H, W)
            1 = known, 0 = blank.

        Returns
        -------
        Tensor (B, D/8, H/8, W/8), int64
        """
        z = self.features(volume, known).float()
        b, c, *grid = z.shape
        return self.codebook.nearest(z.movedim(1, -1).reshape(-1, c)).reshape(b, *grid)

    def decode(self, indices: Tensor) -> Tensor:
        """Volume (B, 1, D, H, W) of codes (B, D/8, H/8, W/8)."""
        return self.decode_vectors(self.codebook.lookup(indices))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Volume (B, 1, D, H, W) of code vectors (B, D/8, H/8, W/8, code_dim), which need not lie in the codebook."""
        return self.decoder(vectors.movedim(-1, 1).contiguous())

    def forward(self, volume: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, 1, D, H, W), commitment loss (scalar) and codes, for training."""
        z = self.features(volume, known)
        flat = z.float().movedim(1, -1)
        shape = flat.shape
        flat = flat.reshape(-1, shape[-1])
        indices = self.codebook.nearest(flat)
        if self.training:
            self.codebook.update(flat.detach(), indices)
        quantised = self.codebook.lookup(indices)
        commitment = F.mse_loss(flat, quantised)
        straight = flat + (quantised - flat).detach()
        straight = straight.reshape(shape).movedim(-1, 1).contiguous().to(z.dtype)
        return self.decoder(straight), commitment, indices.reshape(shape[:-1])
