"""Who the new face is: one synthetic identity a participant, decided by a seed and the participant's label.

What a file's name says of the scan is read here too, for files that lie in no BIDS dataset.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath

SUFFIX = re.compile(r"_([a-zA-Z0-9]+)\.nii(\.gz)?$")
LABEL = re.compile(r"(?:^|_)sub-([a-zA-Z0-9+]+)(?=_)")


def derive_seed(seed: int, *words: str) -> int:
    """A seed of 63 bits from a seed and words; nothing of either can be read back from it."""
    text = "\0".join([str(int(seed)), *words])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def identity_seed(seed: int, participant: str | None) -> int:
    """The seed of a participant's new face, the same in every session, run and contrast.

    Parameters
    ----------
    seed : int
        The run's ``--random-seed``.
    participant : str or None
        Label without ``sub-``; without one the seed alone decides.
    """
    return derive_seed(seed, "identity", participant) if participant else int(seed)


def noise_seed(seed: int, identity: int) -> int:
    """The seed of the noise under the mask."""
    return derive_seed(seed, "noise", str(identity))


def participant_of(name: str | PurePath | None) -> str | None:
    """The participant's label in a BIDS file name, or None."""
    found = LABEL.search(PurePath(name).name) if name else None
    return found.group(1) if found else None


def suffix_of(name: str | PurePath | None) -> str | None:
    """The suffix in a BIDS file name, such as T1w, or None."""
    found = SUFFIX.search(PurePath(name).name) if participant_of(name) else None
    return found.group(1) if found else None
