"""Bad inputs, made one by one: files that cannot be read, and heads that are none to be refaced.

All start from the average head, which is nobody's: it lies in head space already, so its way there is no way at all.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from heads import as_image, average_head
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from bids_cpmae.imaging.facemask import BRAIN_MARGIN_MM, FaceLocation
from bids_cpmae.imaging.headspace import CoordinateMap, apply_affine, grid_points, head_affine, head_shape
from bids_cpmae.imaging.nifti import SourceImage
from bids_cpmae.imaging.resample import sample_points
from bids_cpmae.imaging.template import BRAIN_BIT, load_template


def identity_map(shift=(0.0, 0.0, 0.0)) -> CoordinateMap:
    """From a world that is head space, or one moved by some mm, to head space."""
    points = grid_points(head_affine(4), head_shape(4)) + np.array(shift)
    return CoordinateMap(head_affine(4), points.astype(np.float32))


def template_mask(affine: np.ndarray, shape, mask: np.ndarray) -> np.ndarray:
    """A mask of the template on another grid of head space; beyond it, its edge counts."""
    index = apply_affine(np.linalg.inv(load_template().grid.affine), grid_points(affine, shape))
    return sample_points(mask.astype(np.float32)[None], index, outside="edge")[..., 0] > 0.5


def located_by_hand(source: SourceImage, shift=(0.0, 0.0, 0.0)) -> FaceLocation:
    """The face of the average head, or one ``shift`` mm away from it, without a registration."""
    template, moved = load_template(), source.affine.copy()
    moved[:3, 3] += shift
    face = template_mask(moved, source.shape3, template.replaced_with_air())
    brain = template_mask(moved, source.shape3, template.mask(BRAIN_BIT))
    near = distance_transform_edt(~brain, sampling=source.spacing) <= BRAIN_MARGIN_MM
    measures = {"registration_correlation": 0.95, "mask_share": 0.2, "brain_ml": 1400.0}
    return FaceLocation(face & ~near, brain, measures, identity_map(shift))


def face_voxels(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The face with the air before it, off the brain."""
    template = load_template()
    brain = template_mask(affine, values.shape, template.mask(BRAIN_BIT))
    return template_mask(affine, values.shape, template.replaced_with_air(("face",))) & ~brain


def head(**header) -> nib.Nifti1Image:
    """The average head as it should be."""
    return as_image(*average_head(), **header)


def content_of(path: Path) -> bytes:
    """A file unpacked."""
    return gzip.decompress(path.read_bytes())


# --- what the file itself says: (path) -> None, damages a good file in place


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupted(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def short_of_voxels(path):
    path.write_bytes(gzip.compress(content_of(path)[:-100], 1))


def empty_file(path):
    path.write_bytes(b"")


def not_nifti(path):
    path.write_bytes(gzip.compress(b"a photograph, perhaps" * 100))


def not_fetched(path):
    path.write_bytes(b"/annex/objects/MD5E-s100--0123.nii.gz\n")


def dangling_link(path):
    path.unlink()
    path.symlink_to("../.git/annex/objects/nowhere")


def missing(path):
    path.unlink()


def folder(path):
    path.unlink()
    path.mkdir()


def no_orientation(path):
    content = bytearray(content_of(path))
    content[252:256] = bytes(4)
    path.write_bytes(gzip.compress(content, 1))


def singular_affine(path):
    content = bytearray(content_of(path))
    content[252:254] = bytes(2)  # qform_code: the sform alone counts
    content[280:296] = bytes(16)  # srow_x
    path.write_bytes(gzip.compress(content, 1))


# --- what the image says: () -> image


def colours():
    values, affine = average_head()
    return nib.Nifti1Image(np.zeros(values.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), affine)


def complex_values():
    values, affine = average_head()
    return nib.Nifti1Image(values.astype(np.complex64), affine)


def few_slices():
    values, affine = average_head()
    return as_image(values[:, :, 30:34], affine)


def all_nan():
    values, affine = average_head()
    return as_image(np.full_like(values, np.nan), affine, np.float32)


def constant():
    values, affine = average_head()
    return as_image(np.full_like(values, 7), affine)


def _changed(change, dtype=np.int16):
    values, affine = average_head()
    return as_image(change(values, affine), affine, dtype)


def _rescaled(factor):
    image = head()
    affine = image.affine @ np.diag([factor] * 3 + [1.0])
    return as_image(np.asarray(image.dataobj), affine)


def in_metres():
    return _rescaled(1e-3)


def of_a_fly():
    return _rescaled(0.03)


def of_a_mouse():
    return _rescaled(0.1)


def of_a_giant():
    return _rescaled(4.0)


def pixdim_contradicts():
    image = head()
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 0.5
    return image


def sheared():
    values, affine = average_head()
    affine = affine.copy()
    affine[0, 1] = 1.0
    image = as_image(values, affine)
    image.set_qform(None, 0)
    return image


def forms_contradict():
    image = head()
    image.set_qform(image.affine @ np.diag([-1, 1, 1, 1]), 1)
    return image


def back_to_front():
    return _changed(lambda values, affine: values[:, ::-1])


def upside_down():
    return _changed(lambda values, affine: values[:, :, ::-1])


def lying_on_its_side():
    return _changed(lambda values, affine: np.rot90(values[:, :100, :100], axes=(0, 2)))


def noise_alone():
    return _changed(lambda values, affine: np.abs(np.random.default_rng(0).normal(0, 100, values.shape)))


def a_phantom_bottle():
    def bottle(values, affine):
        x, y, z = np.indices(values.shape) - np.array(values.shape)[:, None, None, None] / 2
        noise = np.random.default_rng(0).integers(0, 12, values.shape)
        return np.where((x**2 + y**2 < 180) & (abs(z) < 30), 500, 0) + noise

    return _changed(bottle)


def brain_alone():
    def strip(values, affine):
        return np.where(template_mask(affine, values.shape, load_template().mask(BRAIN_BIT)), values + 1, 0)

    return _changed(strip)


def mask_image():
    return _changed(lambda values, affine: values > 100, np.uint8)


def label_map():
    def labels(values, affine):
        x, y, z = np.indices(values.shape) // 12
        return np.where(gaussian_filter(values, 1) > 100, 1 + x + 10 * y + 100 * z, 0)

    return _changed(labels)


def hounsfield():
    return _changed(lambda values, affine: values - 1000)


def phase():
    return _changed(lambda values, affine: np.random.default_rng(0).integers(-4096, 4096, values.shape))


# --- what is seen once the face was found: () -> image


def defaced():
    return _changed(lambda values, affine: np.where(face_voxels(values, affine), 0, values))


def filled_with_a_constant():
    return _changed(lambda values, affine: np.where(face_voxels(values, affine), 150, values))


def blurred():
    def blur(values, affine):
        return np.where(face_voxels(values, affine), gaussian_filter(values, 3), values)

    return _changed(blur, np.float32)


def top_of_the_head():
    values, affine = average_head()
    z = np.arange(values.shape[2]) * 2 + affine[2, 3]
    first = int(np.argmax(z > 12))
    moved = affine.copy()
    moved[2, 3] += 2 * first
    return as_image(values[:, :, first:], moved)


def lower_face_cut():
    def cut(values, affine):
        below = apply_affine(affine, np.indices(values.shape).transpose(1, 2, 3, 0).astype(float))[..., 2] < -108
        return np.where(face_voxels(values, affine) & below, 0, values)

    return _changed(cut)


def nose_out_of_view():
    values, affine = average_head()
    y = np.arange(values.shape[1]) * 2 + affine[1, 3]
    return as_image(values[:, : int(np.argmax(y > 62))], affine)


def nan_in_the_brain():
    def holes(values, affine):
        values = values.copy()
        brain = np.argwhere(template_mask(affine, values.shape, load_template().mask(BRAIN_BIT)))
        values[tuple(brain[::50].T)] = np.nan
        return values

    return _changed(holes, np.float32)


def finer(image: nib.Nifti1Image, times: float) -> nib.Nifti1Image:
    """The same image in smaller voxels."""
    values = zoom(np.asarray(image.dataobj, np.float32), times, order=1)
    return as_image(values, image.affine @ np.diag([1 / times] * 3 + [1.0]))
