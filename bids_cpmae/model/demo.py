"""The demo head: decoded from codes that ship with the package, so that no person is in it."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch

from bids_cpmae.model.cpmae import CPMAE

DEMO = "demo_codes.npz"


def demo_codes() -> tuple[np.ndarray, np.ndarray]:
    """Non-brain and brain codes (32, 32, 32, levels) of the demo head."""
    with files("bids_cpmae.data").joinpath(DEMO).open("rb") as file:
        stored = np.load(file)
        return stored["skull"], stored["brain"]


@torch.no_grad()
def demo_head(model: CPMAE) -> np.ndarray:
    """The demo head in head space (256, 256, 256), float32, 0 to 1."""
    skull, brain = (
        vqvae.decode(torch.from_numpy(codes.astype(np.int64))[None])[0, 0].clamp(0, 1).numpy()
        for vqvae, codes in zip((model.skull, model.brain), demo_codes())
    )
    return np.where(model.anatomy.brain, brain, skull)
