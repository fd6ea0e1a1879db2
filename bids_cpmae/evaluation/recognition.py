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


def embed(image: np.ndarray) -> np.ndarray | None:
    """Find the largest face of a picture and describe it in 128 numbers.

    Parameters
    ----------
    image : ndarray (rows, columns), uint8

    Returns
    -------
    ndarray (128,), float64, or None
        None when no face is found. Euclidean distance between two is how unlike the faces are; below 0.6 dlib's
        authors call them one person.
    """
    detector, landmarks, network = _networks()
    faces = detector(image, UPSAMPLE)
    if not faces:
        return None
    largest = max(faces, key=lambda box: box.area())
    coloured = np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
    return np.array(network.compute_face_descriptor(coloured, landmarks(coloured, largest)))


def rank_of_own(probe: np.ndarray, gallery: dict[str, list[np.ndarray]], person: str) -> int | None:
    """Place of a person among all of a gallery when sorted by likeness to a probe; 1 is recognised.

    Parameters
    ----------
    probe : ndarray (128,)
    gallery : dict of str to list of ndarray
        Embeddings of each person's originals; a person without one takes no part.
    person : str
        Who the probe is.

    Returns
    -------
    int or None
        None when the person is not in the gallery. Ties go to the person, the cautious way round.
    """
    nearest = {
        name: min(np.linalg.norm(probe - one) for one in many) for name, many in gallery.items() if many
    }
    if person not in nearest:
        return None
    return 1 + sum(bool(distance < nearest[person]) for distance in nearest.values())
