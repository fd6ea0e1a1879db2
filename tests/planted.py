"""A raw dataset with something of every kind planted in it that could identify somebody, and a derivative of it."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from bids_trees import write_dataset, write_scan

from bids_cpmae.bids.dataset import start_dataset
from bids_cpmae.bids.privacy.nifti import clean_nifti
from bids_cpmae.bids.publish import publish_scan
from bids_cpmae.bids.sidecar import raw_metadata
from bids_cpmae.bids.verdicts import LOGS, PASS, TABLE, Verdict, merge, write_participant

PEOPLE, SESSIONS = ("01", "02"), ("a", "b")
SHAPE = (8, 9, 10)
NAME, MRN, UID = "Doe^Jane", "0048151623", "1.2.840.113619.2.55.3.2831164481.23"
SITE = "Hospital of the Seven Hills"
A = "sub-01/ses-a"


def names_of(participant: str, session: str) -> dict[str, tuple[int, ...]]:
    """Images of a session, and their shapes."""
    stem = f"sub-{participant}/ses-{session}/{{}}/sub-{participant}_ses-{session}_{{}}.nii.gz"
    anat = ["T1w", "T2w", "FLAIR", *(f"echo-{echo}_MEGRE" for echo in (1, 2, 3))]
    return {
        **{stem.format("anat", name): SHAPE for name in anat},
        stem.format("func", "task-rest_bold"): (*SHAPE, 4),
        stem.format("dwi", "dwi"): (*SHAPE, 3),
    }


IMAGES = {name: shape for participant in PEOPLE for session in SESSIONS
          for name, shape in names_of(participant, session).items()}  # fmt: skip
ANATOMICAL = [name for name in IMAGES if "/anat/" in name]


def write_clean(root: Path) -> Path:
    """The dataset with nothing planted."""
    write_dataset(root, description={"Authors": ["A. Author"], "DatasetDOI": "doi:10.1/x", "Acknowledgements": "all"})
    for name, shape in IMAGES.items():
        # nibabel leaves the text fields empty and writes neither name nor time into gzip
        write_scan(root / name, shape)
        if "bold" in name:
            image = image_of(root / name)
            image.header.set_zooms((2, 2, 2, 2))
            nib.save(image, root / name)
    (root / "stimuli").mkdir()
    (root / "stimuli/face1.png").write_bytes(b"\x89PNG drawn")
    sidecars = {
        "T1w": {"EchoTime": 0.003, "MagneticFieldStrength": 3, "ImageType": ["ORIGINAL", "PRIMARY"]},
        "T2w": {"EchoTime": 0.09},
        "FLAIR": {"EchoTime": 0.1},
        "task-rest_bold": {"TaskName": "rest", "RepetitionTime": 2.0, "SliceTiming": [0.0, 1.0],
                           "Instructions": "Keep your eyes open."},
        "dwi": {"EchoTime": 0.08, "PhaseEncodingDirection": "j-"},
    }  # fmt: skip
    for name, content in sidecars.items():
        write_json(root / f"{name}.json", content)
    for name in (name for name in IMAGES if "MEGRE" in name):
        write_json(root / name.replace(".nii.gz", ".json"), {"EchoTime": 0.004 * int(name.split("echo-")[1][0])})
    for name in (name for name in IMAGES if name.endswith("dwi.nii.gz")):
        (root / name.replace(".nii.gz", ".bval")).write_text("0 1000 1000\n")
        (root / name.replace(".nii.gz", ".bvec")).write_text("0 1 0\n0 0 1\n0 0 0\n")
    people = [("participant_id", "age", "sex", "score"), ("sub-01", "34", "F", "7"), ("sub-02", "61", "M", "9")]
    write_table(root / "participants.tsv", people)
    columns = {"age": {"Units": "year"}, "sex": {"Levels": {"F": "female", "M": "male"}}}
    write_json(root / "participants.json", {**columns, "score": {"Description": "points in the test"}})
    for participant in PEOPLE:
        visits = [("session_id", "acq_time"), ("ses-a", "1912-03-04T10:00:00"), ("ses-b", "1912-04-04T11:30:00")]
        write_table(root / f"sub-{participant}/sub-{participant}_sessions.tsv", visits)
        for session in SESSIONS:
            folder = f"sub-{participant}/ses-{session}"
            rows = [("filename", "acq_time")]
            rows += [(name.removeprefix(f"{folder}/"), f"1912-03-04T10:{minute:02d}:00") for minute, name
                     in enumerate(names_of(participant, session))]  # fmt: skip
            write_table(root / folder / f"sub-{participant}_ses-{session}_scans.tsv", rows)
            events = [("onset", "duration", "trial_type"), ("0.5", "1", "rest"), ("20190314", "1", "rest")]
            stem = f"{folder}/func/sub-{participant}_ses-{session}_task-rest"
            write_table(root / f"{stem}_events.tsv", events)
            write_json(root / f"{stem}_physio.json", {"SamplingFrequency": 50.0, "StartTime": 0.0,
                                                      "Columns": ["cardiac"], "PhysioType": "generic"})  # fmt: skip
            with gzip.GzipFile(root / f"{stem}_physio.tsv.gz", "wb", mtime=0) as file:
                file.write(b"1\n2\n3\n")
            # its own name is in the header, which says nothing new
    return root


def write_json(path: Path, content: object) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_table(path: Path, rows: list[tuple]) -> None:
    """A table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


def image_of(path: Path) -> nib.Nifti1Image:
    """A scan as written, to be changed and saved again."""
    image = nib.load(path)
    return nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)


def header_text(root: Path, name: str, field: str) -> None:
    """A name in a text field."""
    image = image_of(root / name)
    image.header[field] = NAME.encode()
    nib.save(image, root / name)


def extension(root: Path, name: str, _: str) -> None:
    """A header extension with a comment."""
    image = image_of(root / name)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    nib.save(image, root / name)


def trailing(root: Path, name: str, _: str) -> None:
    """Bytes after the voxels."""
    content = gzip.decompress((root / name).read_bytes())
    (root / name).write_bytes(gzip.compress(content + NAME.encode(), mtime=0))


def after_gzip(root: Path, name: str, _: str) -> None:
    """Bytes after the gzip stream."""
    with open(root / name, "ab") as file:
        file.write(NAME.encode())


def gzip_header(root: Path, name: str, field: str) -> None:
    """Name, comment, extra field or time in a gzip header."""
    content = gzip.decompress((root / name).read_bytes())
    flags, told = {"gzip extra field": 4, "gzip name": 8, "gzip comment": 16, "gzip time": 0}[field], NAME.encode()
    time = 1_552_567_890 if field == "gzip time" else 0
    more = struct.pack("<H", len(told)) + told if flags == 4 else told + b"\0" if flags else b""
    pack = zlib.compressobj(wbits=-15)
    body = pack.compress(content) + pack.flush()
    end = struct.pack("<II", zlib.crc32(content), len(content) % 2**32)
    (root / name).write_bytes(
        b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<I", time) + b"\0\xff" + more + body + end
    )


def sidecar(value):
    """A field in a sidecar; dots go into objects."""

    def plant(root: Path, name: str, field: str) -> None:
        path = root / name
        content = json.loads(path.read_text()) if path.exists() else {}
        at, steps = content, field.split("[")[0].split(".")
        for step in steps[:-1]:
            at = at.setdefault(step, {})
        at[steps[-1]] = value
        write_json(path, content)

    return plant


def cell(value: str, row: int = 1, *, described: bool = False):
    """A cell of a table, in a column that is added where there is none."""

    def plant(root: Path, name: str, field: str) -> None:
        path = root / name
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        if field not in lines[0]:
            for index, line in enumerate(lines):
                line.append("n/a" if index else field)
        lines[row][lines[0].index(field)] = value
        write_table(path, lines)
        if described:
            sidecar({"Description": "as told"})(root, name.replace(".tsv", ".json"), field)

    return plant


def text(line: str):
    """A line at the end of a file, which is made where there is none."""

    def plant(root: Path, name: str, _: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + line + "\n")

    return plant


def link(root: Path, name: str, _: str) -> None:
    """The file becomes a link to an absolute path."""
    path = root / name
    there = root.parent / "store" / path.name
    there.parent.mkdir(exist_ok=True)
    path.rename(there)
    path.symlink_to(there.absolute())


def _image(name: str) -> str:
    return f"{A}/{name.format('sub-01_ses-a')}"


T1W, T2W, FLAIR = (_image(f"anat/{{}}_{suffix}") for suffix in ("T1w", "T2w", "FLAIR"))
ECHO = _image("anat/{}_echo-1_MEGRE")
BOLD, DWI = _image("func/{}_task-rest_bold"), _image("dwi/{}_dwi")
B = "sub-01/ses-b/func/sub-01_ses-b_task-rest_bold.nii.gz"
B_DWI = "sub-01/ses-b/dwi/sub-01_ses-b_dwi.nii.gz"
SCANS, EVENTS = f"{A}/sub-01_ses-a_scans.tsv", _image("func/{}_task-rest_events.tsv")
PEOPLE_TSV, SESSIONS_TSV = "participants.tsv", "sub-01/sub-01_sessions.tsv"

# file, field, kind, and what plants it
PLANTED = [
    (f"{BOLD}.nii.gz", "descrip", "header-text", header_text),
    (f"{BOLD}.nii.gz", "aux_file", "header-text", header_text),
    (f"{T1W}.nii.gz", "intent_name", "header-text", header_text),
    (f"{T1W}.nii.gz", "db_name", "header-text", header_text),
    (f"{T2W}.nii.gz", "data_type", "header-text", header_text),
    (f"{DWI}.nii.gz", "header extension", "extension", extension),
    (B, "after the voxels", "trailing-bytes", trailing),
    (B_DWI, "after the gzip stream", "trailing-bytes", after_gzip),
    ("sub-02/ses-a/func/sub-02_ses-a_task-rest_bold.nii.gz", "gzip name", "gzip-name", gzip_header),
    ("sub-02/ses-a/dwi/sub-02_ses-a_dwi.nii.gz", "gzip time", "gzip-time", gzip_header),
    ("sub-02/ses-b/func/sub-02_ses-b_task-rest_bold.nii.gz", "gzip comment", "gzip-comment", gzip_header),
    ("sub-02/ses-b/dwi/sub-02_ses-b_dwi.nii.gz", "gzip extra field", "gzip-extra", gzip_header),
    (_image("func/{}_task-rest_physio.tsv.gz"), "gzip name", "gzip-name", gzip_header),
    (f"{T1W}.json", "PatientName", "person-name", sidecar(NAME)),
    (f"{T1W}.json", "PatientID", "identifier", sidecar(MRN)),
    (f"{T1W}.json", "PatientBirthDate", "birth", sidecar("1931-02-03")),
    (f"{T1W}.json", "PatientWeight", "unknown-field", sidecar(81.5)),
    (f"{T1W}.json", "InstitutionName", "place", sidecar(SITE)),
    (f"{T1W}.json", "InstitutionAddress", "contact", sidecar("1 Seven Hills Road")),
    (f"{T1W}.json", "StationName", "device", sidecar("MRC40764")),
    (f"{T1W}.json", "DeviceSerialNumber", "device", sidecar("40764")),
    (f"{T1W}.json", "AccessionNumber", "identifier", sidecar("A-55213")),
    (f"{T1W}.json", "OperatorsName", "staff", sidecar("Smith")),
    (f"{T1W}.json", "PerformingPhysicianName", "staff", sidecar("Miller")),
    (f"{T1W}.json", "SeriesInstanceUID", "uid", sidecar(UID)),
    (f"{T1W}.json", "AcquisitionDate", "date", sidecar("20190314")),
    (f"{T1W}.json", "AcquisitionTime", "time", sidecar("13:45:12.120000")),
    (f"{T1W}.json", "ImageComments", "comment", sidecar("moved a lot, anxious")),
    (f"{T1W}.json", "global", "unknown-field", sidecar({"const": {"PatientName": NAME}})),
    (f"{T1W}.json", "ScanOptions", "uid", sidecar(f"FS {UID}")),
    (f"{ECHO}.json", "ImageType[1]", "date", sidecar(["ORIGINAL", "2019-03-14"])),
    (f"{ECHO}.json", "SoftwareFilters.OperatorName", "staff", sidecar("Smith")),
    ("task-rest_bold.json", "TaskDescription", "e-mail", sidecar("ask jane.doe@seven-hills.org")),
    ("task-rest_bold.json", "CogAtlasID", "login", sidecar("https://jane:pw@cogat.example.org/task")),
    ("task-rest_bold.json", "PulseSequenceDetails", "path", sidecar(r"C:\Users\jane doe\seq\mprage.dll")),
    ("dwi.json", "SequenceName", "path", sidecar("/home/jane/ep2d")),
    ("dwi.json", "ReceiveCoilName", "path", sidecar(r"\\server7\share\coils")),
    ("dwi.json", "Manual", "phone", sidecar("call +41 44 555 12 34")),
    ("dwi.json", "PulseSequenceType", "time", sidecar("EPI at 13:45:12")),
    (f"{FLAIR}.json", "TimeZero", "time", sidecar("13:45:12")),
    (SCANS, "acq_time", "acquisition-date", cell("2019-03-14T13:45:12.120000")),
    (SCANS, "operator", "staff", cell("Smith", described=True)),
    (SESSIONS_TSV, "acq_time", "acquisition-date", cell("2019-03-14T13:45:12")),
    (PEOPLE_TSV, "age", "age", cell("93")),
    (PEOPLE_TSV, "age_at_onset", "age", cell("90+", described=True)),
    (PEOPLE_TSV, "nickname_of_dog", "person-name", cell("Rex", described=True)),
    (PEOPLE_TSV, "scanner_slot", "undescribed-column", cell("14")),
    (PEOPLE_TSV, "date_of_birth", "birth", cell("1931-02-03", described=True)),
    (PEOPLE_TSV, "mrn", "identifier", cell(MRN, 2, described=True)),
    (PEOPLE_TSV, "reach", "e-mail", cell("jane@example.org", described=True)),
    (EVENTS, "stim_file", "path", cell("/home/jane/exp/stim/face1.png")),
    (EVENTS, "experimenter_email", "contact", cell("smith@seven-hills.org")),
    ("README", "line 2", "path", text("Converted in /home/jane/study")),
    ("dataset_description.json", "HowToAcknowledge", "path", sidecar("see file:///home/jane/cite.txt")),
    ("sourcedata/Doe_20190314.dcm", "file", "scanner-file", text("DICM")),
    ("sourcedata/Doe_20190314.dcm", "name", "date-in-name", None),
    (f"{A}/anat/.DS_Store", "file", "system-file", text("Bud1")),
    ("code/.convert.py.swp", "file", "crash-file", text("b0VIM jane")),
    ("code/convert.py", "line 1", "path", text("SOURCE = '/scratch/jane/dicom'")),
    ("sub-02/ses-b/dwi/sub-02_ses-b_dwi.bval", "link", "link", link),
]  # fmt: skip


def write_planted(root: Path) -> Path:
    """The dataset with everything planted."""
    write_clean(root)
    for file, field, _, plant in PLANTED:
        if plant:
            plant(root, file, field)
    return root


def write_verdicts(derivative: Path, verdicts: dict[str, tuple[str, str]] | None = None) -> None:
    """Tables of verdicts: PASS but for those given, with their reasons."""
    for participant in PEOPLE:
        rows = []
        for name in (name for name in ANATOMICAL if name.startswith(f"sub-{participant}/")):
            verdict, reason = (verdicts or {}).get(name, (PASS, ""))
            rows.append(Verdict(name, participant, name.split("ses-")[1][0], verdict, reason))
        (derivative / LOGS / f"sub-{participant}_{TABLE}.tsv").unlink(missing_ok=True)
        write_participant(derivative, participant, rows)
    merge(derivative)


def write_derivative(raw: Path, out: Path) -> Path:
    """A derivative as a run leaves it: images of other voxels with clean headers, sidecars, masks and verdicts."""
    start_dataset(out, raw)
    work = out.parent / f"{out.name}-work.nii.gz"
    for name in ANATOMICAL:
        clean_nifti(raw / name, work)
        refaced = image_of(work)
        nib.save(nib.Nifti1Image(np.asarray(refaced.dataobj)[::-1], refaced.affine, refaced.header), work)
        publish_scan(out, name, image=work, mask=work, raw_sidecar=raw_metadata(raw, name),
                     settings={"RandomSeed": 0, "Mode": "face"}, regions="face and ears")  # fmt: skip
    write_verdicts(out)
    work.unlink()
    return out
