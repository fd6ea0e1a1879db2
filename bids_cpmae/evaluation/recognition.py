"""Face recognition by dlib: does a program that knows faces find the person behind a picture?"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bids_cpmae.errors import InputError

UPSAMPLE = 1
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"


def model_files() -> tuple[Path, Path]:
    """The landmark and the embedding network of the package ``face_recognition_models``.

    Raises
    ------
    InputError
        When the package is not installed.
    """
    # looked up, not imported: the package imports pkg_resources, which newer setuptools no longer has
    found = find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise InputError("face recognition needs face_recognition_models; pip install 'bids_cpmae[evaluate]'")
    folder = Path(next(iter(found.submodule_search_locations))) / "models"
    return folder / LANDMARKS, folder / EMBEDDING


@lru_cache(maxsize=1)
def _networks():
    try:
        import dlib
    except ModuleNotFoundError as error:
        raise InputError("face recognition needs dlib; pip install 'bids_cpmae[evaluate]'") from error

    landmarks, embedding = model_files()
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(landmarks)),
        dlib.face_recognition_model_v1(str(embedding)),
    )


def find_face(image: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) of the largest face in a picture (rows, columns; uint8), or None."""
    faces = _networks()[0](image, UPSAMPLE)
    if not faces:
        return None
    box = max(faces, key=lambda face: face.area())
    return box.left(), box.top(), box.right(), box.bottom()


def embed(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Describe the face in a box of a picture in 128 numbers.

    Parameters
    ----------
    image : ndarray (rows, columns), uint8
    box : tuple of int
        Left, top, right and bottom.

    Returns
    -------
    ndarray (128,), float64
        Euclidean distance between two is how unlike the faces are; below 0.6 dlib's authors call them one person.
    """
    import dlib

    _, landmarks, network = _networks()
    coloured = np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
    return np.array(network.compute_face_descriptor(coloured, landmarks(coloured, dlib.rectangle(*box))))


def likeness(probe: np.ndarray, gallery: np.ndarray) -> float:
    """Distance between two people known by several pictures each: the mean over all pairs.

    Parameters
    ----------
    probe, gallery : ndarray (pictures, 128)
    """
    return float(np.linalg.norm(probe[:, None] - gallery[None], axis=-1).mean())
