"""``cpmae leaks``: everything planted is found, with file and field; a clean dataset has none."""

import json

import pytest
from bids_trees import write_dataset
from planted import MRN, NAME, PLANTED, SITE, UID, write_clean, write_planted

from bids_cpmae.bids.leaks import NUMBERS, find_leaks
from bids_cpmae.bids.privacy.findings import KINDS
from bids_cpmae.workbench import main


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "raw")


@pytest.fixture(scope="module")
def found(planted):
    return find_leaks(planted)


@pytest.mark.parametrize("file, field, kind, _", PLANTED, ids=[f"{file}:{field}" for file, field, *_ in PLANTED])
def test_every_planted_leak_is_found(found, file, field, kind, _):
    assert [one.kind for one in found.findings if (one.file, one.field) == (file, field)] == [kind]


def test_nothing_else_is_found(found):
    planted = {(file, field) for file, field, *_ in PLANTED}
    # what one planted thing says in two places
    also = {("sourcedata/Doe_20190314.dcm", "name"), ("participants.tsv", "reach")}
    assert {(one.file, one.field) for one in found.findings} - planted - also == set()
    assert len({one.kind for one in found.findings}) >= 25
    assert {one.kind for one in found.findings} <= set(KINDS)


def test_a_clean_dataset_has_none(tmp_path):
    survey = find_leaks(write_clean(tmp_path / "raw"))
    assert survey.findings == []
    assert survey.files == sum(path.is_file() for path in (tmp_path / "raw").rglob("*"))


def test_identifiers_are_never_printed_whole(planted, tmp_path, capsys):
    assert main(["leaks", str(planted), "--json", str(tmp_path / "leaks.json")]) == 1
    told = capsys.readouterr().out + (tmp_path / "leaks.json").read_text()
    for secret in (NAME, MRN, UID, SITE, "jane.doe", "2019-03-14", "13:45:12", "Smith", "/home/jane"):
        assert secret not in told
    report = json.loads((tmp_path / "leaks.json").read_text())
    assert {"file", "field", "kind", "value", "count"} == set(report["Leaks"][0])
    assert str(planted.parent) not in told


def test_exit_codes(tmp_path, capsys):
    assert main(["leaks", str(write_clean(tmp_path / "raw"))]) == 0
    assert main(["leaks", str(tmp_path / "none")]) == 66
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, content",
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", b"\x1f\x8b\x08broken"),
        ("sub-01/anat/sub-01_T1w.nii.gz", b"/annex/objects/MD5E-s1--0.nii.gz\n"),
        ("sub-01/anat/sub-01_T1w.nii", b"\0" * 400),
        ("sub-01/anat/sub-01_T1w.json", b"{ broken"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content):
    root = write_dataset(tmp_path / "raw")
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(content)
    (leak,) = find_leaks(root).findings
    assert (leak.file, leak.kind) == (name, "unreadable")
    assert str(tmp_path) not in leak.field


def test_a_link_to_nowhere_is_told(tmp_path):
    root = write_dataset(tmp_path / "raw")
    (root / "participants.tsv").symlink_to("../gone.tsv")
    assert [one.kind for one in find_leaks(root).findings] == ["unreadable"]


def test_history_is_passed_over_and_said(tmp_path, capsys):
    root = write_dataset(tmp_path / "raw")
    (root / ".git").mkdir()
    (root / ".git/config").write_text("email = jane@example.org\npath = /home/jane/x\n")
    assert main(["leaks", str(root)]) == 0
    assert ".git" in capsys.readouterr().err


def test_linked_folders_are_looked_into_but_not_in_circles(tmp_path):
    root = write_dataset(tmp_path / "raw")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/sub-01_T1w.json").write_text('{"PatientName": "x"}')
    (root / "sub-01").mkdir()
    (root / "sub-01/anat").symlink_to("../../store")
    (root / "sub-01/loop").symlink_to("..")
    assert [(one.file, one.field) for one in find_leaks(root).findings] == [
        ("sub-01/anat/sub-01_T1w.json", "PatientName")
    ]


def test_pages_are_read_but_for_their_code(tmp_path):
    root = write_dataset(tmp_path / "raw")
    (root / "page.html").write_text("<script>x = '/home/jane/a'</script><p>/home/jane/b</p>")
    (leak,) = find_leaks(root).findings
    assert leak.value == "/home/jane/b" and leak.file == "page.html"
    (root / "page.html").write_text('<script type="application/json">{"x": "/home/jane/a"}</script>')
    assert [one.kind for one in find_leaks(root).findings] == ["path"]


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("0 1000 1e3\n", True),
        ("nan NaN -inf\t0.5, Infinity", True),
        ("", True),
        ("Jane Doe 1990-01-02 nan", False),
        ("inf Jane", False),
        ("1 nano", False),
        ("1 nan " * 50_000 + "x", False),
    ],
)
def test_gradients_are_numbers_and_nothing_else(text, numbers):
    assert bool(NUMBERS.fullmatch(text)) is numbers
