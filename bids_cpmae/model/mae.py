"""Masked autoencoder over code groups, conditioned on the brain and on one identity latent.

Eight codes of a 2 x 2 x 2 cube make one transformer token (16 mm). The encoder sees what is known: the brain's
groups and the non-brain groups outside the mask. The decoder fills the masked groups: they attend to one another and
to the encoded context, and are steered by the identity latent, in which all of a face's chance sits, so that it hangs
together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bids_cpmae.model.vqvae import STRIDE

GROUP = 2
CODES_PER_GROUP = GROUP**3


@dataclass(frozen=True)
class MAEConfig:
    """Shape of the masked autoencoder.

    Attributes
    ----------
    width, heads, encoder_depth, decoder_depth : int
        Of the transformer.
    latent : int
        Length of the identity latent.
    code_dim : int
        Length of one code vector of either VQ-VAE.
    codes : int
        Size of the non-brain codebook.
    side : int
        Groups along one side of head space.
    """

    width: int = 256
    heads: int = 8
    encoder_depth: int = 2
    decoder_depth: int = 4
    latent: int = 48
    code_dim: int = 16
    codes: int = 1024
    side: int = 256 // STRIDE // GROUP

    def as_dict(self) -> dict:
        """Plain values, for the weights file."""
        return asdict(self)


def group(codes: Tensor) -> Tensor:
    """Codes (B, D, H, W) to groups (B, D/2 * H/2 * W/2, 8)."""
    b, d, h, w = codes.shape
    codes = codes.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
    return codes.reshape(b, -1, CODES_PER_GROUP)


def ungroup(groups: Tensor, side: int) -> Tensor:
    """Inverse of `group` on a cube of ``side`` groups; trailing dimensions are kept."""
    b, _, _, *rest = groups.shape
    x = groups.reshape(b, side, side, side, 2, 2, 2, *rest)
    x = x.permute(0, 1, 4, 2, 5, 3, 6, *range(7, x.ndim))
    return x.reshape(b, side * 2, side * 2, side * 2, *rest)


class Attention(nn.Module):
    """Multi-head attention of ``x`` (B, N, C) to ``context`` (B, M, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        b, n, c = x.shape
        q = self.query(x).reshape(b, n, self.heads, -1).transpose(1, 2)  # (B, nh, N, C/nh)
        k, v = self.key_value(context).reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, attention to the context, MLP; scaled and shifted by the identity latent."""

    def __init__(self, width: int, heads: int, latent: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.itself, self.across = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.steer = nn.Linear(latent, 2 * width)

    def forward(self, x: Tensor, context: Tensor, latent: Tensor) -> Tensor:
        scale, shift = self.steer(latent)[:, None].chunk(2, -1)
        y = self.norm1(x)
        x = x + self.itself(y, y)
        x = x + self.across(self.norm2(x), context)
        return x + self.mlp(self.norm3(x) * (1 + scale) + shift)


class IdentityEncoder(nn.Module):
    """Reads a latent's mean and log-variance off whole faces, in training only."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Linear(config.code_dim * CODES_PER_GROUP, width)
        self.blocks = nn.ModuleList(EncoderBlock(width, config.heads) for _ in range(1))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2 * config.latent)

    def forward(self, vectors: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, N, 8 * code_dim) and position embeddings (N, C) -> mean and log-variance (B, latent)."""
        x = self.embed(vectors) + position
        for block in self.blocks:
            x = block(x)
        mean, log_variance = self.out(self.norm(x).mean(1)).chunk(2, -1)
        return mean, log_variance.clamp(-8, 4)


class MaskedAutoencoder(nn.Module):
    """Predicts a code vector for each masked code; all groups of a call share their places over the batch."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.config = config
        width, length = config.width, config.code_dim * CODES_PER_GROUP
        self.place = nn.Parameter(0.02 * torch.randn(config.side**3, width))
        self.kind = nn.Parameter(0.02 * torch.randn(2, width))
        self.embed_brain = nn.Linear(length, width)
        self.embed_skull = nn.Linear(length + CODES_PER_GROUP, width)
        self.embed_latent = nn.Linear(config.latent, width)
        self.encoder = nn.ModuleList(EncoderBlock(width, config.heads) for _ in range(config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(
            DecoderBlock(width, config.heads, config.latent) for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, length)
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.log_prior = nn.Parameter(torch.zeros(config.codes))
        self.identity = IdentityEncoder(config)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("average", torch.zeros(config.side**3, length))
        self.register_buffer("latent_mean", torch.zeros(config.latent))
        self.register_buffer("latent_factor", torch.eye(config.latent))

    def draw_latent(self, noise: Tensor) -> Tensor:
        """Identity latents (B, latent) of standard normal ``noise``: the Gaussian that fits those of the training."""
        return self.latent_mean + noise @ self.latent_factor.T

    def forward_encoder(self, brain: Tensor, brain_at: Tensor, skull: Tensor, known: Tensor, skull_at: Tensor):
        """Encode the context.

        Parameters
        ----------
        brain : Tensor (B, N, 8 * code_dim)
        skull : Tensor (B, M, 8 * code_dim)
        known : Tensor (M, 8)
            1 where a code of the group is known; the vectors of the others must be 0.
        brain_at, skull_at : Tensor (N,), (M,)
            Places in the flattened cube of groups.

        Returns
        -------
        Tensor (B, N + M, width)
        """
        x = self.embed_brain(brain) + self.place[brain_at] + self.kind[0]
        if len(skull_at):
            y = torch.cat([skull, known.expand(len(skull), -1, -1)], -1)
            x = torch.cat([x, self.embed_skull(y) + self.place[skull_at] + self.kind[1]], 1)
        for block in self.encoder:
            x = block(x)
        return self.encoder_norm(x)

    def forward_decoder(self, context: Tensor, skull: Tensor, known: Tensor, at: Tensor, latent: Tensor) -> Tensor:
        """Predict code vectors (B, N, 8, code_dim) for the groups at ``at`` (N,).

        ``skull`` (B, N, 8 * code_dim) and ``known`` (B, N, 8) hold what is already known of these groups.
        """
        z = self.embed_latent(latent)[:, None]
        x = self.embed_skull(torch.cat([skull, known], -1)) + self.place[at] + z
        context = torch.cat([context, z], 1)
        for block in self.decoder:
            x = block(x, context, latent)
        # what is learned is how this head departs from the average one at the same place
        found = self.average[at] + self.head(self.decoder_norm(x))
        return found.unflatten(-1, (CODES_PER_GROUP, self.config.code_dim))

    def logits(self, predicted: Tensor, codebook: Tensor) -> Tensor:
        """Log-odds (..., codes) of each code, from predicted vectors (..., dim): near and common ones are likely."""
        distance = codebook.square().sum(-1) - 2 * predicted @ codebook.T
        return self.log_prior - distance * self.log_sharpness.exp()
