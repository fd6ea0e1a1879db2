"""CP-MAE joined up: sketch an identity in the blank, encode brain and non-brain apart, fill the masked codes, decode.

Source: Van der Goten & Smith, MICCAI 2024 (arXiv 2310.15778), as described there; hyperparameters are this project's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from scipy.ndimage import convolve1d
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bids_cpmae.imaging.distance import distance_in
from bids_cpmae.imaging.filters import smooth_step
from bids_cpmae.imaging.headspace import head_affine, head_shape
from bids_cpmae.imaging.intensity import tissue_level
from bids_cpmae.imaging.light import lit
from bids_cpmae.imaging.skinfit import cover_bone, meet_skin, thicken
from bids_cpmae.model.identity import WHOLE, Identity, Pose, shares
from bids_cpmae.model.mae import CODES_PER_GROUP, MaskedAutoencoder, group, ungroup
from bids_cpmae.model.regions import Anatomy, Places, cells
from bids_cpmae.model.vqvae import STRIDE, VQVAE

# how far in codes what is encoded and decoded matters to what is masked
CONTEXT_HALO, SKETCH_HALO, DECODE_HALO = 7, 4, 2
# next to what is known what is decoded leads, which holds it; deeper inside the sketch does
CONTEXT_MM = 12.0
# keeps all that is coarser, takes away what changes its sign at every voxel
NO_ALTERNATION = np.array([-1, 4, 10, 4, -1], np.float32) / 16
# of an identity's scores: none is drawn beyond this, in standard deviations, and how wide they are spread against those
# of the training heads, without which ten new faces lie less than 70 % as far apart as people do
WIDEST, IDENTITY_SCALE = 2.0, 1.12
# how large faces are, the average head's being 1, and how much they differ; how much they nod, in degrees, and how far
# forwards and upwards they sit. Bounded as the scores are, they differ by 0.88 of that
FACE_SIZE, SIZE_SPREAD, PITCH_SPREAD, PLACE_SPREAD_MM = 1.02, 0.027, 2.25, 1.8
# the bone of a forehead is kept, and all skin lies as far before it to a millimetre, so that a drawn shape alone would
# bring the old forehead back: how much further out in mm the new one lies on average, and how far from that at most
FOREHEAD_MM, FOREHEAD_SPREAD_MM = 1.6, 0.7
# where its middle ends and its sides begin; where it begins, and is whole, forwards, and upwards from the lids
FOREHEAD_SIDE_MM = (10.0, 40.0)
FOREHEAD_FORWARD_MM, FOREHEAD_UP_MM = (15.0, 35.0), (-24.0, -8.0)


def code_box(codes: np.ndarray, halo: int) -> tuple[slice, ...]:
    """Smallest box of codes around the True ones of (32, 32, 32), grown by ``halo`` codes."""
    box = []
    for axis, size in enumerate(codes.shape):
        hit = np.flatnonzero(codes.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, hit[0] - halo), min(size, hit[-1] + 1 + halo)))
    return tuple(box)


def within(box: tuple[slice, ...], other: tuple[slice, ...]) -> tuple[slice, ...]:
    """What two boxes have in common."""
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other))


def voxel_box(box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The voxels that a box of codes stands for."""
    return tuple(slice(s.start * STRIDE, s.stop * STRIDE) for s in box)


def quickly(device: torch.device) -> AbstractContextManager:
    """Convolutions as fast as they give what the other machines give.

    A processor that reckons in bfloat16 is twice as fast with it, as the VQ-VAEs were trained. A GPU is fast enough in
    single precision, without the shortened one that it would take otherwise, and finds the codes a processor finds.
    """
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    return in_bfloat16(device)


def in_bfloat16(device: torch.device) -> AbstractContextManager:
    """Convolutions and products in bfloat16 where the hardware reckons in it; elsewhere it is many times slower."""
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported()
    else:
        able = any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def encode_box(vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box: tuple[slice, ...]) -> Tensor:
    """Codes (1, D, H, W, levels) of a box of codes, from voxels (X, Y, Z) and which of them are known.

    Where the codebook is, they are found and stay.
    """
    voxels, device = voxel_box(box), vqvae.codebook.levels[0].vectors.device
    tensors = [
        torch.from_numpy(np.ascontiguousarray(part[voxels], np.float32))[None, None].to(device)
        for part in (volume, known)
    ]
    with quickly(device):
        return vqvae.encode(*tensors)


def blended(found: np.ndarray, drawn: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """What was decoded next to known tissue, the sketch deeper inside, 0 to 1.

    Parameters
    ----------
    found, drawn : ndarray (X, Y, Z), float32
        At 1 mm, of even sides; the decoded head, which meets the scan's, and the sketch.
    blank : ndarray (X, Y, Z), bool
        True = to be made anew. How deep a voxel lies is reckoned on every second one.
    """
    depth = 2 * distance_in(cells(blank, 2, how="all"))
    deep = interpolate(torch.from_numpy(depth).float()[None, None], scale_factor=2, mode="trilinear")[0, 0].numpy()
    share = np.where(blank, np.exp(-deep / CONTEXT_MM), np.float32(1))
    return np.clip(drawn + share * (found - drawn), 0, 1)


def forehead(middle: float, side: float, box: tuple[slice, ...] = WHOLE) -> np.ndarray:
    """How much further out in mm a forehead is to lie at each voxel of a box in head space (256, 256, 256), float32.

    ``middle`` and ``side`` are that in mm between the brows, and beside them.
    """
    across, forwards, up = (
        np.arange(n)[part] + start for part, n, start in zip(box, head_shape(), head_affine()[:3, 3])
    )
    amount = middle + (side - middle) * smooth_step(np.abs(across), *FOREHEAD_SIDE_MM)
    shares = smooth_step(forwards, *FOREHEAD_FORWARD_MM), smooth_step(up, *FOREHEAD_UP_MM)
    return np.einsum("i,j,k->ijk", amount, *shares).astype(np.float32)


def fitted(drawn: np.ndarray, volume: np.ndarray, blank: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A sketch whose skin meets the scan's, in the scan's light.

    Parameters
    ----------
    drawn, volume : ndarray (X, Y, Z), float32
        Sketch and scan at 1 mm, 0 to 1; the scan is read outside ``blank`` only.
    blank, brain : ndarray (X, Y, Z), bool
        True = to be made anew, and True = brain.
    """
    level = tissue_level(volume[~blank & (volume > 0)])
    if level > 0:
        drawn = meet_skin(volume, drawn, blank, level, np.ones(3), brain=brain)
    return lit(drawn, volume, blank, brain)


def covering(new: np.ndarray, volume: np.ndarray, blank: np.ndarray, brain: np.ndarray, more: np.ndarray) -> np.ndarray:
    """A new head with ``more`` flesh in mm under its skin, and no kept bone of the forehead bare; else as `fitted`."""
    level = tissue_level(volume[~blank & (volume > 0)])
    if level <= 0:
        return new
    new = cover_bone(volume, new, blank, level, np.ones(3), brain)
    return thicken(new, blank, level, np.ones(3), brain, more)


def _bounded(chances: Tensor) -> Tensor:
    """Normal numbers of chances between 0 and 1, none beyond `WIDEST`."""
    even = 2 * chances - 1
    return 2**0.5 * torch.erfinv(even * torch.erf(torch.tensor(WIDEST / 2**0.5, dtype=torch.float64)))


class CPMAE(nn.Module):
    """The two VQ-VAEs and the masked autoencoder, with the anatomy of head space they were trained in.

    Attributes
    ----------
    skull, brain : VQVAE
    mae : MaskedAutoencoder
    identity : Identity
    anatomy : Anatomy
    """

    def __init__(
        self, skull: VQVAE, brain: VQVAE, mae: MaskedAutoencoder, identity: Identity, anatomy: Anatomy
    ) -> None:
        super().__init__()
        self.skull, self.brain, self.mae, self.identity = skull, brain, mae, identity
        self.anatomy = anatomy

    @torch.no_grad()
    def remodel(
        self,
        volume: np.ndarray,
        blank: np.ndarray,
        *,
        mode: str = "face",
        identity_seed: int = 0,
        identity_scale: float = IDENTITY_SCALE,
        head_size: float = 1.0,
    ) -> np.ndarray:
        """Give a head another face.

        Parameters
        ----------
        volume : ndarray (256, 256, 256), float32
            Head space, 0 to 1; what lies under ``blank`` is not read.
        blank : ndarray (256, 256, 256), bool
            True = to be made anew.
        mode : {"face", "head"}
            ``head`` makes every non-brain code anew, whatever ``blank`` says.
        identity_seed : int
            Decides who the new face is; the same in every scan of a person.
        identity_scale : float
            Spread of the identities; 1 is that of the training heads.
        head_size : float
            How many times as large as the average head the scan's is, see `HeadFrame.head_size`: a new face is as large
            as faces are, not as its head is, but for what `Pose.displacement` says. Head mode has no use for it.

        Returns
        -------
        ndarray (256, 256, 256), float32
            The whole new head, the given brain in its place; zero far from what was made anew.
        """
        inside = self.anatomy.brain
        blank = ~inside if mode == "head" else blank & ~inside
        # codes of which a part is known are encoded; those of which nothing is are filled
        touched, masked = (cells(blank, STRIDE, how=how) for how in ("any", "all"))
        places = Places.of(masked, self.anatomy)
        touched &= places.reach
        scores = torch.from_numpy(self.draw_scores(identity_seed, identity_scale)).to(self.device)
        around = voxel_box(code_box(touched, SKETCH_HALO))
        if mode == "head":  # no tissue is known that the sketch would have to meet
            return np.where(inside, volume, self.identity.sketch(scores, shares(mode), around))
        pose = self.draw_pose(identity_seed, identity_scale).displacement(head_size)
        drawn = self.identity.sketch(scores, shares(mode), around, pose=pose)
        drawn[around] = fitted(*(part[around] for part in (drawn, volume, blank, inside)))
        skull = self._encode(
            self.skull, np.where(blank, drawn, volume), ~inside,
            within(code_box(touched, CONTEXT_HALO), code_box(places.reach, 0)),
        )  # fmt: skip
        # far off the head there is air, masked or not
        skull[:, torch.from_numpy(~places.reach)] = self._air()
        brain = self._encode(self.brain, volume, inside, code_box(cells(inside, STRIDE), 0))
        vectors = self.fill(skull, brain, places)
        box = code_box(touched, DECODE_HALO)
        voxels = voxel_box(box)
        out = np.zeros(volume.shape, np.float32)
        new = blended(self._decode(vectors[(slice(None), *box)]), drawn[voxels], blank[voxels])
        more = forehead(*self.draw_forehead(identity_seed, identity_scale), voxels)
        out[voxels] = covering(new, *(part[voxels] for part in (volume, blank, inside)), more)
        return np.where(inside, volume, out)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mae.place.device

    def _decode(self, vectors: Tensor) -> np.ndarray:
        """Voxels (X, Y, Z) of non-brain code vectors (1, D, H, W, code_dim)."""
        with quickly(vectors.device):
            found = self.skull.decode_vectors(vectors)[0, 0].float().cpu().numpy()
        # the last layer draws cubes of two voxels, and what alternates from voxel to voxel is its mark
        for axis in range(3):
            found = convolve1d(found, NO_ALTERNATION, axis, mode="nearest")
        return found

    def draw_scores(self, seed: int, scale: float = 1.0) -> np.ndarray:
        """Identity scores (components,) of a seed: normal, none beyond `WIDEST`, times ``scale``; alike on all devices.

        Unbounded, one face in twenty is a caricature; two faces differ hardly less for the bound.
        """
        return scale * _bounded(self._chances(seed)[: self.identity.length]).float().numpy()

    def draw_forehead(self, seed: int, scale: float = 1.0) -> tuple[float, float]:
        """How much further out in mm the middle and the sides of a seed's forehead lie; ``scale`` as for the scores."""
        even = 2 * self._chances(seed)[self.identity.length : self.identity.length + 2] - 1
        middle, side = (FOREHEAD_MM + scale * FOREHEAD_SPREAD_MM * even).tolist()
        return middle, side

    def draw_pose(self, seed: int, scale: float = 1.0) -> Pose:
        """How large a seed's face is and how it sits in its head; ``scale`` and bounds as for the scores."""
        size, pitch, *place = (scale * _bounded(self._chances(seed)[self.identity.length + 2 :])).tolist()
        return Pose(FACE_SIZE + SIZE_SPREAD * size, PITCH_SPREAD * pitch, *(PLACE_SPREAD_MM * way for way in place))

    def _chances(self, seed: int) -> Tensor:
        """Numbers between 0 and 1, float64, that all of a seed's identity follows from: its scores', 2 and 4 more."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.identity.length + 6, generator=generator, dtype=torch.float64)

    def _air(self) -> Tensor:
        """The non-brain codes (levels,) of plain air."""
        air = torch.zeros(1, 1, *(5 * STRIDE,) * 3, device=self.device)
        with quickly(self.device):
            return self.skull.encode(air, torch.ones_like(air))[0, 2, 2, 2]

    def _encode(self, vqvae: VQVAE, volume: np.ndarray, known: np.ndarray, box: tuple[slice, ...]) -> Tensor:
        """Codes (1, 32, 32, 32, levels) of the known voxels in a box of codes; those outside it are code 0."""
        grid = (n // STRIDE for n in volume.shape)
        codes = torch.zeros((1, *grid, vqvae.config.levels), dtype=torch.long, device=self.device)
        codes[(slice(None), *box)] = encode_box(vqvae, volume, known, box)
        return codes

    def fill(self, skull: Tensor, brain: Tensor, places: Places) -> Tensor:
        """Code vectors (1, 32, 32, 32, code_dim) with the masked ones predicted.

        ``skull`` and ``brain`` are codes (1, 32, 32, 32, levels); masked codes of ``skull`` are those of the sketch.
        """
        device = self.device
        book = self.skull.codebook
        at = torch.from_numpy(places.target).to(device)
        groups = group(skull)
        if not len(at):  # a mask so small that it covers no code whole
            return ungroup(book.lookup(groups), self.mae.config.side)
        context = self._context(groups, group(brain), places)
        known = torch.from_numpy(places.target_known).to(device)[None, ..., None]
        given = book.lookup(groups[:, at])
        predicted = self.mae.forward_decoder(
            context, (given * known).flatten(2), known[..., 0].float(), given.flatten(2), at
        )
        everything = book.lookup(groups)
        everything[:, at] = torch.where(known, given, predicted)
        return ungroup(everything, self.mae.config.side)

    def _context(self, skull: Tensor, brain: Tensor, places: Places) -> Tensor:
        device = self.device
        brain_at, skull_at = (torch.from_numpy(index).to(device) for index in (places.brain, places.skull))
        return self.mae.forward_encoder(
            self.brain.codebook.lookup(brain[:, brain_at]).flatten(2), brain_at,
            self.skull.codebook.lookup(skull[:, skull_at]).flatten(2),
            torch.ones(len(skull_at), CODES_PER_GROUP, device=device), skull_at,
        )  # fmt: skip
