"""Skeleton BIDS datasets, a head to reface that is nobody's, and tiny networks; made, not stored."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np


def write_scan(path: Path, shape=(16, 16, 16)) -> Path:
    """A little volume of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).integers(0, 900, shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([2, 2, 2, 1])), path)
    return path


def write_dataset(root: Path, *relatives: str, description: dict | None = None) -> Path:
    """A raw dataset with a scan of noise at each path."""
    root.mkdir(parents=True, exist_ok=True)
    content = {
        "Name": "raw study",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "CC0",
        **(description or {}),
    }
    (root / "dataset_description.json").write_text(json.dumps(content))
    (root / "README").write_text("Made for a test.\n")
    for relative in relatives:
        write_scan(root / relative)
    return root


def write_head(path: Path, *, spacing: float = 2.0) -> Path:
    """The package's average head, which is nobody's, as a scan of so many mm."""
    from bids_cpmae.imaging.resample import resample
    from bids_cpmae.imaging.template import SPACING, load_template

    grid = load_template().grid
    affine = grid.affine @ np.diag([spacing / SPACING] * 3 + [1])
    shape = tuple(int(np.ceil(size * SPACING / spacing)) for size in grid.data.shape)
    head = resample(grid.data, grid.affine, affine, shape)
    noise = np.random.default_rng(0).standard_normal(head.shape, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.rint(np.abs(500 * head + 8 * noise)).astype(np.int16), affine), path)
    return path


def write_tiny_weights(path: Path) -> Path:
    """Networks of the real kind, small and untrained: they draw rubble, all else is as with trained ones."""
    import torch

    from bids_cpmae.model.identity import Identity
    from bids_cpmae.model.mae import MAEConfig, MaskedAutoencoder
    from bids_cpmae.model.vqvae import VQVAE, VQVAEConfig
    from bids_cpmae.model.weights import save_weights

    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = VQVAEConfig(
            channels=(4, 4, 8), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), codes=16, code_dim=4, levels=2
        )
        mae = MAEConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, code_dim=4, brain_dim=4)
        return save_weights(path, VQVAE(shape), VQVAE(shape), MaskedAutoencoder(mae), Identity(4))
