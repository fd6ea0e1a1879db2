"""Masked autoencoder over groups of codes, conditioned on the brain and on the sketch of an identity.

Eight codes of a 2 x 2 x 2 cube make one transformer token (16 mm). The encoder sees what is known: the brain's
groups and the non-brain groups outside the mask. The decoder fills the masked groups: they attend to one another and
to the encoded context, and each is given the codes of the sketch (`bids_cpmae.model.identity`) at its place. All of a
face's chance sits in the sketch, so that it hangs together.
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
    code_dim, brain_dim : int
        Length of one code vector of the non-brain and of the brain VQ-VAE.
    side : int
        Groups along one side of head space.
    """

    width: int = 256
    heads: int = 8
    encoder_depth: int = 2
    decoder_depth: int = 4
    code_dim: int = 32
    brain_dim: int = 16
    side: int = 256 // STRIDE // GROUP

    def as_dict(self) -> dict:
        """Plain values, for the weights file."""
        return asdict(self)


def group(codes: Tensor) -> Tensor:
    """Codes (B, D, H, W, ...) to groups (B, D/2 * H/2 * W/2, 8, ...)."""
    b, d, h, w, *rest = codes.shape
    codes = codes.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2, *rest)
    codes = codes.permute(0, 1, 3, 5, 2, 4, 6, *range(7, codes.ndim))
    return codes.reshape(b, -1, CODES_PER_GROUP, *rest)


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
    """Self-attention, attention to the context, MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.itself, self.across = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.itself(y, y)
        x = x + self.across(self.norm2(x), context)
        return x + self.mlp(self.norm3(x))


class MaskedAutoencoder(nn.Module):
    """Predicts a code vector for each masked code; all groups of a call share their places over the batch."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.config = config
        width, length = config.width, config.code_dim * CODES_PER_GROUP
        self.place = nn.Parameter(0.02 * torch.randn(config.side**3, width))
        self.kind = nn.Parameter(0.02 * torch.randn(2, width))
        self.embed_brain = nn.Linear(config.brain_dim * CODES_PER_GROUP, width)
        self.embed_skull = nn.Linear(length + CODES_PER_GROUP, width)
        self.embed_sketch = nn.Linear(length, width)
        self.encoder = nn.ModuleList(EncoderBlock(width, config.heads) for _ in range(config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderBlock(width, config.heads) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, length)
        self.follow = nn.Parameter(torch.full((length,), 0.5))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("average", torch.zeros(config.side**3, length))
        self.register_buffer("average_sketch", torch.zeros(config.side**3, length))

    def forward_encoder(self, brain: Tensor, brain_at: Tensor, skull: Tensor, known: Tensor, skull_at: Tensor):
        """Encode the context.

        Parameters
        ----------
        brain : Tensor (B, N, 8 * brain_dim)
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

    def forward_decoder(self, context: Tensor, skull: Tensor, known: Tensor, sketch: Tensor, at: Tensor) -> Tensor:
        """Predict code vectors (B, N, 8, code_dim) for the groups at ``at`` (N,).

        ``skull`` (B, N, 8 * code_dim) and ``known`` (B, N, 8) hold what is already known of these groups, ``sketch``
        (B, N, 8 * code_dim) the sketch's code vectors there.
        """
        x = self.embed_skull(torch.cat([skull, known], -1)) + self.embed_sketch(sketch) + self.place[at]
        for block in self.decoder:
            x = block(x, context)
        # what is learned is how this head departs from the average one at the same place, beyond what the sketch says
        found = self.average[at] + self.follow * (sketch - self.average_sketch[at]) + self.head(self.decoder_norm(x))
        return found.unflatten(-1, (CODES_PER_GROUP, self.config.code_dim))
