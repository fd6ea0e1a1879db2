"""Volumetric VQ-VAE: a 1 mm volume to codes on an 8 mm grid and back.

No layer takes statistics over space (no normalisation), so a code depends on nothing beyond its receptive field,
a crop decodes as it would inside the whole head, and nothing of a blanked region can travel through a global mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8
LAP = 4
NEAREST_AT_A_TIME = 512


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
        Size of a codebook and of one code vector.
    levels : int
        Codebooks; each holds what the ones before it leave over, and a place's vector is the sum of its codes.
    """

    channels: tuple[int, int, int] = (32, 64, 128)
    encoder_blocks: tuple[int, int, int] = (0, 1, 1)
    decoder_blocks: tuple[int, int, int] = (1, 2, 2)
    codes: int = 1024
    code_dim: int = 16
    levels: int = 1

    def as_dict(self) -> dict:
        """Plain values, for the weights file."""
        return asdict(self)


def skull_preset() -> VQVAEConfig:
    """The non-brain VQ-VAE, which has to draw faces: 60 bits for every 8 mm cube."""
    return VQVAEConfig(code_dim=32, levels=6)


def brain_preset() -> VQVAEConfig:
    """The brain VQ-VAE, which only conditions: half the features."""
    return VQVAEConfig(channels=(16, 32, 64), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), codes=512)


def pixel_unshuffle3d(x: Tensor) -> Tensor:
    """Eight voxels of a 2 x 2 x 2 cube to eight channels: (B, C, D, H, W) -> (B, 8 C, D/2, H/2, W/2)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * 8, d // 2, h // 2, w // 2)


def pixel_shuffle3d(x: Tensor, size: int = 2) -> Tensor:
    """Inverse of `pixel_unshuffle3d`, for cubes of any size: (B, C s^3, D, H, W) -> (B, C, D s, H s, W s)."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, -1, size, size, size, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // size**3, d * size, h * size, w * size)


def exactly(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer in single precision, whatever autocast says: half precision would show in what is bright."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float())


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
    """(B, 2, D, H, W): intensity and known-mask -> (B, code_dim, D/8, H/8, W/8).

    A linear look at overlapping cubes, and convolutions that add to it.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        b2, b4, b8 = config.encoder_blocks
        self.linear = nn.Conv3d(1, config.code_dim, STRIDE + 2 * LAP, stride=STRIDE, padding=LAP, bias=False)
        self.stem = nn.Conv3d(16, c2, 3, padding=1)
        self.layers = nn.Sequential(
            _blocks(c2, b2), nn.SiLU(), nn.Conv3d(c2, c4, 4, stride=2, padding=1),
            _blocks(c4, b4), nn.SiLU(), nn.Conv3d(c4, c8, 4, stride=2, padding=1),
            _blocks(c8, b8), nn.SiLU(), nn.Conv3d(c8, config.code_dim, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return exactly(self.linear, x[:, :1]) + self.layers(self.stem(pixel_unshuffle3d(x)))


class Decoder(nn.Module):
    """(B, code_dim, D/8, H/8, W/8) -> (B, 1, D, H, W): overlapping cubes, and convolutions that add to them."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        c2, c4, c8 = config.channels
        b2, b4, b8 = config.decoder_blocks
        self.linear = nn.ConvTranspose3d(
            config.code_dim, 1, STRIDE + 2 * LAP, stride=STRIDE, padding=LAP, bias=False
        )  # fmt: skip
        self.layers = nn.Sequential(
            nn.Conv3d(config.code_dim, c8, 3, padding=1), _blocks(c8, b8),
            nn.SiLU(), nn.ConvTranspose3d(c8, c4, 4, stride=2, padding=1), _blocks(c4, b4),
            nn.SiLU(), nn.ConvTranspose3d(c4, c2, 4, stride=2, padding=1), _blocks(c2, b2),
            nn.SiLU(), nn.Conv3d(c2, 8, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return exactly(self._cubes, x) + pixel_shuffle3d(self.layers(x))

    def _cubes(self, x: Tensor) -> Tensor:
        """What ``linear`` yields, as a convolution on the grid of codes that draws all voxels of a cube: much faster.

        Each cube of voxels is reached by the overlapping cubes of its own code and of the 26 around it.
        """
        kernel = F.pad(self.linear.weight[:, 0], (LAP,) * 6)
        kernel = kernel.reshape(-1, *(3, STRIDE) * 3).permute(2, 4, 6, 0, 1, 3, 5).flip(4, 5, 6)
        return pixel_shuffle3d(F.conv3d(x, kernel.reshape(STRIDE**3, -1, 3, 3, 3), padding=1), STRIDE)


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
        lengths = self.vectors.square().sum(1)
        # in parts that stay in the processor's cache
        return torch.cat([_least(lengths - 2 * part @ self.vectors.T) for part in z.split(NEAREST_AT_A_TIME)])

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


def _least(values: Tensor) -> Tensor:
    """Index (N,) of the least value of each row (N, K); on a processor by NumPy, which is eight times as fast."""
    return values.argmin(1) if values.is_cuda else torch.from_numpy(values.numpy(force=True).argmin(1))


class ResidualCodebook(nn.Module):
    """Codebooks in a row, each for what the ones before it leave over.

    Source: Zeghidour et al. 2021 (arXiv 2107.03312), residual vector quantisation.
    """

    def __init__(self, levels: int, codes: int, dim: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Codebook(codes, dim) for _ in range(levels))

    def nearest(self, z: Tensor) -> Tensor:
        """Indices (..., levels) of the codes that stand for vectors (..., dim)."""
        left = z.reshape(-1, z.shape[-1])
        indices = []
        # half precision would take a wrong code where many lie close together
        with torch.autocast(z.device.type, enabled=False):
            for level in self.levels:
                indices.append(level.nearest(left))
                left = left - level.lookup(indices[-1])
        return torch.stack(indices, -1).reshape(*z.shape[:-1], len(self.levels))

    def lookup(self, indices: Tensor) -> Tensor:
        """Vectors (..., dim) of indices (..., levels)."""
        return sum(level.lookup(indices[..., number]) for number, level in enumerate(self.levels))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Start every level from vectors (N, dim) drawn at random out of what is left over for it."""
        for level in self.levels:
            level.initialise(z)
            z = z - level.lookup(level.nearest(z))

    @torch.no_grad()
    def update(self, z: Tensor, indices: Tensor) -> None:
        """Move each level towards what was assigned to it; ``z`` (N, dim), ``indices`` (N, levels)."""
        for number, level in enumerate(self.levels):
            chosen = level.lookup(indices[:, number])
            level.update(z, indices[:, number])
            z = z - chosen


class VQVAE(nn.Module):
    """Encoder, codebooks and decoder."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.codebook = ResidualCodebook(config.levels, config.codes, config.code_dim)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def start_linear(self, volumes: Tensor) -> None:
        """Start as the best linear code there is: principal components of the 8 mm cubes of volumes (B, 1, D, H, W).

        The convolutions beside it start silent.
        """
        cubes = volumes.unfold(2, STRIDE, STRIDE).unfold(3, STRIDE, STRIDE).unfold(4, STRIDE, STRIDE)
        cubes = cubes.reshape(-1, STRIDE**3).double()
        basis = torch.linalg.eigh(cubes.T @ cubes)[1].flip(1)[:, : self.config.code_dim].T
        basis = basis.reshape(-1, 1, *(STRIDE,) * 3)
        inner = (slice(None), slice(None), *(slice(LAP, LAP + STRIDE),) * 3)
        for kernel in (self.encoder.linear.weight, self.decoder.linear.weight):
            kernel.zero_()
            kernel[inner] = basis.to(kernel.dtype)
        for last in (self.encoder.layers[-1], self.decoder.layers[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def features(self, volume: Tensor, known: Tensor) -> Tensor:
        """What the encoder yields before quantisation, (B, code_dim, D/8, H/8, W/8), float32."""
        return self.encoder(torch.cat([torch.where(known > 0, volume, 0), known], 1)).float()

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
        Tensor (B, D/8, H/8, W/8, levels), int64
        """
        return self.codebook.nearest(self.features(volume, known).movedim(1, -1))

    def decode(self, indices: Tensor) -> Tensor:
        """Volume (B, 1, D, H, W) of codes (B, D/8, H/8, W/8, levels)."""
        return self.decode_vectors(self.codebook.lookup(indices))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Volume (B, 1, D, H, W) of code vectors (B, D/8, H/8, W/8, code_dim), which need not lie in the codebook."""
        return self.decoder(vectors.movedim(-1, 1).contiguous())

    def forward(self, volume: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reconstruction (B, 1, D, H, W), commitment loss (scalar), codes and what was quantised, for training."""
        vectors = self.features(volume, known).movedim(1, -1)
        indices = self.codebook.nearest(vectors)
        if self.training:
            flat = vectors.detach().reshape(-1, vectors.shape[-1])
            self.codebook.update(flat, indices.reshape(-1, indices.shape[-1]))
        quantised = self.codebook.lookup(indices)
        commitment = F.mse_loss(vectors, quantised)
        straight = vectors + (quantised - vectors).detach()
        return self.decode_vectors(straight), commitment, indices, vectors
