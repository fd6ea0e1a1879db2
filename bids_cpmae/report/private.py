"""Before and after, for the eyes of those who scanned: these pages show original faces and never lie in the output."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from bids_cpmae.bids.atomic import write_text
from bids_cpmae.errors import OutputError
from bids_cpmae.report.page import fill
from bids_cpmae.report.pictures import Picture, face_pictures, head_frame, read_volume, seam_pictures

NOTICE = "README.txt"
WARNING = (
    "The pages in this folder show original faces next to new ones.\n"
    "They are for the eyes of those who may see the original scans. Do not share this folder.\n"
)


def check_private_dir(private_dir: Path, output_dir: Path, bids_dir: Path) -> Path:
    """See that a folder for original faces lies neither in the output nor in the input, nor holds them.

    Links are followed, so that no detour leads into the output.

    Returns
    -------
    Path
        The folder, absolute.

    Raises
    ------
    OutputError
    """
    folder = private_dir.resolve()
    others = ((output_dir, "output", "which is there to be shared"), (bids_dir, "input", "which is never written to"))
    for other, name, why in others:
        other = other.resolve()
        if folder == other or other in folder.parents:
            raise OutputError(
                f"{private_dir}: the folder for before/after pictures is or lies inside the {name}, {why}; "
                "choose another with --private-dir"
            )
        if folder in other.parents:
            raise OutputError(
                f"{private_dir}: the folder for before/after pictures holds the {name}; "
                "choose one beside it with --private-dir"
            )
    return folder


def write_before_after(
    private_dir: Path, scan_relative: str, original_path: Path, refaced_path: Path, mask_path: Path | None = None
) -> Path:
    """Write a page with a scan before and after, from the same sides and through the same planes.

    Parameters
    ----------
    private_dir : Path
        Checked by `check_private_dir`; a notice in it says what it holds. Made if it is not there, and then only its
        owner may read it; who may read one that was there is its owner's choice.
    scan_relative : str
        Path of the raw scan below its dataset; the page is named after it.
    original_path, refaced_path : Path
    mask_path : Path, optional
        1 = replaced.

    Raises
    ------
    ScanError
        When a file cannot be read, or holds no head.
    OutputError
        When the page cannot be written.
    """
    source = PurePosixPath(scan_relative)
    path = private_dir / source.parent / f"{source.name.split('.')[0]}_before-after.html"
    mask, mask_affine = read_volume(mask_path) if mask_path else (None, None)
    replaced = None if mask is None else mask > 0
    rows: dict[str, list[Picture]] = {}
    frame = None
    for when, scan in (("before", original_path), ("after", refaced_path)):
        volume, affine = read_volume(scan)
        # the planes of the original for both
        frame = frame or head_frame(volume, affine, replaced, mask_affine)
        faces = face_pictures(volume, affine, f"the face {when}")
        rows[when] = [*faces, *seam_pictures(volume, affine, replaced, mask_affine, frame=frame)]
    try:
        private_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(private_dir / NOTICE, WARNING)
        pairs = list(zip(rows["before"], rows["after"], strict=True))
        return write_text(path, fill("private.html.j2", title=f"{source.name}: before and after", pairs=pairs))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
