"""Pictures of heads, drawn once and kept: all attackers that look at renderings share them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bids_cpmae.errors import ExitCode, InputError, ScanError
from bids_cpmae.imaging import rendering
from bids_cpmae.imaging.nifti import load_source
from bids_cpmae.imaging.rendering import View
from bids_cpmae.processes import one_thread

LOG = logging.getLogger("bids_cpmae")


@dataclass(frozen=True)
class Album:
    """Draws scans and remembers the pictures.

    Attributes
    ----------
    work : Path
        The pictures lie in ``work/pictures``, named by the SHA-256 of scan, view and drawing code. They show faces.
    """

    work: Path

    def __call__(self, path: Path, views: Sequence[View]) -> np.ndarray:
        """Pictures (views, size, size), uint8, of the head in a scan.

        Raises
        ------
        InputError
            When no head stands out from the air in it.
        """
        content = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        places = [self.work / "pictures" / f"{content}_{_digest(view)}.npy" for view in views]
        missing = [number for number, place in enumerate(places) if not place.is_file()]
        if missing:
            surface = _surface(path)
            places[0].parent.mkdir(parents=True, exist_ok=True)
            for number in missing:
                partial = places[number].with_suffix(".part.npy")
                np.save(partial, rendering.render(surface, views[number]))
                partial.replace(places[number])
        return np.stack([np.load(place) for place in places])


def _surface(path: Path) -> rendering.Surface:
    try:
        source = load_source(path)
        return rendering.head_surface(source.data, source.affine)
    except ScanError as error:
        raise InputError(f"{path}: {error}", ExitCode.DATA) from error


def _digest(view: View) -> str:
    return hashlib.sha256(json.dumps([view.as_dict(), _code()]).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _code() -> str:
    return hashlib.sha256(Path(rendering.__file__).read_bytes()).hexdigest()


def draw_all(album: Album, scans: dict[str, Path], views: Sequence[View], *, nprocs: int = 1, what: str) -> None:
    """Draw many scans beforehand, several at a time, with a line of progress now and then."""
    with ProcessPoolExecutor(max(1, nprocs), mp_context=get_context("forkserver"), initializer=one_thread) as pool:
        futures = [pool.submit(_draw, album, path, tuple(views)) for path in scans.values()]
        for number, future in enumerate(futures, 1):
            future.result()
            if number % 10 == 0 or number == len(futures):
                LOG.info("%s: %d of %d heads drawn", what, number, len(futures))


def _draw(album: Album, path: Path, views: tuple[View, ...]) -> None:
    album(path, views)
