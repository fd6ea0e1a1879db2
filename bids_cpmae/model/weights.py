"""Weights in one safetensors file: both VQ-VAEs, the masked autoencoder and the identities, with their shapes."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from bids_cpmae.errors import WeightsError
from bids_cpmae.model.cpmae import CPMAE
from bids_cpmae.model.identity import Identity
from bids_cpmae.model.mae import MAEConfig, MaskedAutoencoder
from bids_cpmae.model.regions import Anatomy
from bids_cpmae.model.vqvae import VQVAE, VQVAEConfig
from bids_cpmae.model.weightsfile import FORMAT, check_weights, shipped_weights

TRAINING_ONLY = ("counts", "sums")


@lru_cache(maxsize=1)
def shipped_anatomy() -> Anatomy:
    """Brain and head of the shipped template on the model's grid."""
    from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, load_template

    template = load_template()
    return Anatomy(brain=template.fine(BRAIN_BIT), head=template.fine(HEAD_BIT))


def save_weights(path: Path, skull: VQVAE, brain: VQVAE, mae: MaskedAutoencoder, identity: Identity) -> Path:
    """Write what sampling needs, float16 but for the codebooks."""
    from safetensors.torch import save_file

    parts: dict[str, nn.Module] = {"skull": skull, "brain": brain, "mae": mae, "identity": identity}
    tensors = {}
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            if not key.endswith(TRAINING_ONLY):
                kind = torch.float32 if "codebook" in key else torch.float16
                kind = kind if value.is_floating_point() else value.dtype
                tensors[f"{name}.{key}"] = value.detach().to(kind).contiguous()
    tensors["identity.portrait"] = identity.pack_portrait()
    shapes = {name: json.dumps(part.config.as_dict()) for name, part in parts.items() if hasattr(part, "config")}
    save_file(tensors, path, metadata={"format": FORMAT, **shapes})
    os.chmod(path, 0o644)
    return Path(path)


@lru_cache(maxsize=1)
def load_cpmae(path: Path | None = None, device: str = "cpu") -> CPMAE:
    """The model on a device, ready to sample; loaded once a process.

    Parameters
    ----------
    path : Path, optional
        A ``.safetensors`` file written by `save_weights`; the shipped weights if not given.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    WeightsError
        When the file is missing, is no such file, or does not fit this version.
    """
    from safetensors import safe_open

    from bids_cpmae.imaging.template import load_portrait

    path = Path(path) if path else shipped_weights()
    check_weights(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    configs = {name: json.loads(metadata[name]) for name in ("skull", "brain", "mae")}
    skull, brain = (
        VQVAE(VQVAEConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in configs[name].items()}))
        for name in ("skull", "brain")
    )
    identity = Identity(len(tensors["identity.components"]), tensors["identity.where"])
    if "identity.portrait" in tensors:
        try:
            identity.unpack_portrait(tensors.pop("identity.portrait"))
        except ValueError as error:
            raise WeightsError(f"{path}: {error}; make the file again by `cpmae train mae`") from error
    else:  # as in the shipped file, whose portrait lies beside it
        identity.portrait = load_portrait()
    model = CPMAE(skull, brain, MaskedAutoencoder(MAEConfig(**configs["mae"])), identity, shipped_anatomy())
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith(TRAINING_ONLY)]
    if missing or unexpected:
        raise WeightsError(f"{path}: weights do not fit the model (missing {missing[:3]}, unexpected {unexpected[:3]})")
    # the order of axes that convolutions reckon in anyway: a quarter of their time went into turning them
    return model.eval().to(device, memory_format=torch.channels_last_3d)
