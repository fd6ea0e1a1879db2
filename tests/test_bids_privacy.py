"""Finding and cleaning: identifiers in text, sidecars and tables; what is clean stays as it is."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from planted import NAME, SITE, UID

from bids_cpmae.bids.privacy import fields, values
from bids_cpmae.bids.privacy.findings import Finding, shorten
from bids_cpmae.bids.privacy.names import date_in_name, identifying, telling_file
from bids_cpmae.bids.privacy.sidecars import COLUMNS, DATASET, DERIVATIVE, SIDECAR, clean_json, kind_of, shareable
from bids_cpmae.bids.privacy.tables import (
    Table,
    clean_table,
    dates_before_and_after,
    dates_in,
    draw_shift,
    earlier_shift,
    parse_date,
    pool_age,
    shift_date,
)


@pytest.mark.parametrize(
    "text, kind",
    [
        ("scanned 2019-03-14", "date"),
        ("2019/3/14", "date"),
        ("14.03.2019", "date"),
        ("03/14/2019", "date"),
        ("20190314", "date"),
        ("20190314134512", "date"),
        ("14 March 2019", "date"),
        ("Mar 14, 2019", "date"),
        ("at 13:45:12.12", "time"),
        ("TE=2.3;Time=134512.120", "time"),
        ("jane.doe@mri.example.org", "e-mail"),
        ("ftp://jane@example.org/x", "login"),
        ("/home/jane/x.nii", "path"),
        ("~/study/x.nii", "path"),
        ("/opt/data/x.nii", "path"),
        ("(C:\\Users\\Jane Doe\\x)", "path"),
        ("D:/study/x", "path"),
        ("\\\\server\\share\\x", "path"),
        ("file:///data/x", "path"),
        (UID, "uid"),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "uid"),
        ("00:1B:44:11:3A:B7", "device"),
        ("DOE^JANE", "person-name"),
        ("078-05-1120", "identifier"),
        ("+1 (555) 123-4567", "phone"),
        ("555-123-4567", "phone"),
    ],
)
def test_identifiers_in_text(text, kind):
    assert [found for found, *_ in values.find(text)] == [kind]
    assert f"[{kind} removed]" in values.clean(text)
    assert values.find(values.clean(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "1912-03-04T10:00:00",
        "1925-12-31",
        "20191314",
        "1.2.3",
        "27\\LX\\MR Software release:DV26.0_R03",
        "SK\\SP\\MP",
        "https://www.cognitiveatlas.org/task/id/trm_4c8a834779883",
        "mL/100g/min",
        "bids::sub-01/func/x.nii.gz",
        "bids:raw:sub-01/anat/x.nii.gz",
        "ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz",
        "%SiemensSeq%\\tfl",
        "(Item/Object/Man-made-object), Red",
        "n/a",
        "3/4",
        "HEA;HEP",
        "B^2",
        "doi:10.18112/openneuro.ds000001.v1.0.0",
        "10:30",
        "1:2",
        "_fm3d1_ns",
        "M/NORM/DIS2D",
        "[4.2, 17.5]",
    ],
)
def test_text_that_says_nothing(text):
    assert values.find(text) == []
    assert values.clean(text) == text


@pytest.mark.parametrize(
    "name, kind",
    [
        ("PatientName", "person-name"),
        ("patient_birth_date", "birth"),
        ("DOB", "birth"),
        ("e_mail", "contact"),
        ("HomeAddress", "contact"),
        ("StudyInstanceUID", "uid"),
        ("ReferringPhysicianName", "staff"),
        ("MRN", "identifier"),
        ("InstitutionalDepartmentName", "place"),
        ("DeviceSerialNumber", "device"),
        ("ImageComments", "comment"),
        ("AcquisitionTime", "time"),
        ("StudyDate", "date"),
        ("IssuerOfPatientID", "identifier"),
    ],
)
def test_names_that_identify(name, kind):
    assert identifying(name) == kind


@pytest.mark.parametrize(
    "name",
    [
        "EchoTime",
        "trial_type",
        "response_time",
        "microphone",
        "female",
        "Manufacturer",
        "age",
        "score",
        "onset",
        "AcquisitionDuration",
        "denomination",
        "headphones",
    ],
)
def test_names_that_do_not(name):
    assert identifying(name) is None


def test_no_field_that_may_be_shared_sounds_like_one_that_identifies():
    assert {name for name in fields.SHAREABLE if identifying(name)} == set()


@pytest.mark.parametrize(
    "name, date",
    [
        ("sub-01_ses-20190314_T1w.nii.gz", "20190314"),
        ("14-03-2019", "14-03-2019"),
        ("run_2019-03-14", "2019-03-14"),
        ("sub-20191399", None),
        ("sub-01_T1w.nii.gz", None),
        ("ses-19120304", None),
    ],
)
def test_dates_in_names(name, date):
    assert date_in_name(name) == date


@pytest.mark.parametrize(
    "name, kind",
    [
        ("IM0001.dcm", "scanner-file"),
        ("._x", "system-file"),
        ("crash-20-jane.pklz", "crash-file"),
        ("meas_MID1.dat", "scanner-file"),
        ("sub-01_T1w.nii.gz", None),
    ],
)
def test_files_that_should_not_be_there(name, kind):
    assert telling_file(name) == kind


def test_lists_of_fields_cover_the_schema():
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    if schema.bids_version != fields.SCHEMA:
        pytest.skip(f"the lists were made from BIDS {fields.SCHEMA}, installed is {schema.bids_version}")
    known = {entry.get("name", name) for name, entry in schema.objects.metadata.items()}
    lists = (fields.ACQUISITION, fields.DATASET, fields.COLUMN, frozenset(fields.WITHHELD))
    assert known == frozenset().union(*lists)
    assert not fields.BEYOND_BIDS & known
    assert not frozenset(fields.WITHHELD) & (fields.SHAREABLE | fields.DATASET | fields.OWN)


def test_the_manual_names_what_is_withheld():
    manual = (Path(__file__).parents[1] / "docs/sharing.md").read_text()
    named = {name for name in fields.WITHHELD if not name.startswith("DigitizedHeadPointsCoordinate")}
    assert {name for name in named if f"`{name}`" not in manual} == set()
    assert fields.SCHEMA in manual


def test_a_sidecar_as_dcm2niix_writes_it():
    kept = {
        "Modality": "MR",
        "MagneticFieldStrength": 3,
        "ImagingFrequency": 123.2,
        "Manufacturer": "Siemens",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "EchoTime": 0.003,
        "PulseSequenceDetails": "%SiemensSeq%\\tfl",
        "SoftwareVersions": "syngo MR E11",
        "ConversionSoftware": "dcm2niix",
        "ConversionSoftwareVersion": "v1.0.20220720",
    }
    imaging = kept.pop("ImagingFrequency")
    told = {
        "ImagingFrequency": imaging,
        "SAR": 0.05,
        "SeriesNumber": 3,
        "ProtocolName": "Doe mprage",
        "SeriesDescription": "x",
        "AcquisitionNumber": 1,
        "InstitutionName": SITE,
    }
    cleaned, leaks = clean_json({**kept, **told})
    assert cleaned == kept
    assert {leak.field for leak in leaks} == set(told)


def test_nested_objects_and_lists():
    content = {"SoftwareFilters": {"a": {"PatientID": "1", "note": NAME, "gain": 2, "when": ["2019-03-14", "ok"]}}}
    cleaned, leaks = clean_json(content)
    assert cleaned == {"SoftwareFilters": {"a": {"gain": 2, "when": ["ok"]}}}
    assert {leak.field for leak in leaks} == {f"SoftwareFilters.a.{name}" for name in ("PatientID", "note", "when[0]")}
    assert clean_json([{"x": NAME}])[1][0].field == "[0].x"


def test_columns_stay_and_names_of_people_in_them_go():
    content = {
        "age": {"Description": "age at scan", "Units": "year"},
        "Secret": 3,
        "site": {"Levels": {"1": "first", "2": "ask jane@example.org"}, "LongName": "Site"},
    }
    cleaned, leaks = clean_json(content, COLUMNS)
    assert cleaned["site"]["Levels"] == {"1": "first", "2": "ask [e-mail removed]"}
    assert [leak.field for leak in leaks] == ["Secret", "site.Levels.2"]


def test_descriptions_of_columns_lose_only_what_bids_does_not_know():
    content = {
        "group": {"Description": "arm", "Annotations": {"IsAbout": "nb:Diagnosis"}},
        "iq": "points in the test",
        "site": {"Annotations": {}},
        "operator": "Smith",
        "ScanDate": "spring",
    }
    cleaned, leaks = clean_json(content, COLUMNS)
    assert cleaned == {"group": {"Description": "arm"}, "iq": "points in the test"}
    assert [leak.field for leak in leaks] == ["group.Annotations", "site", "operator", "ScanDate"]
    # beside data a text is a field of the recording
    assert "iq" not in clean_json(content, kind_of("task-rest_events.json"))[0]
    table = Table(("participant_id", "group", "iq", "site"), (("sub-01", "a", "99", "1"),))
    kept, _ = clean_table(table, "participants", described=content)
    assert kept.columns == ("participant_id", "group", "iq")
    assert clean_table(kept, "participants", described=cleaned)[1] == []


def test_a_description_keeps_its_authors_and_loses_paths():
    content = {
        "Name": "x",
        "Authors": ["Jane Doe <jane@example.org>"],
        "BIDSVersion": "1.10.0",
        "Released": "2019-03-14",
        "DatasetLinks": {"raw": "file:///home/jane/raw", "doi": "doi:10.1/x"},
        "PatientName": NAME,
    }
    cleaned, leaks = clean_json(content, DATASET)
    del content["PatientName"]
    assert cleaned == {**content, "DatasetLinks": {"doi": "doi:10.1/x"}}
    assert {leak.field for leak in leaks} == {"DatasetLinks.raw", "PatientName"}


@pytest.mark.parametrize(
    "name, kind",
    [
        ("dataset_description.json", DATASET),
        ("participants.json", COLUMNS),
        ("phenotype/iq.json", COLUMNS),
        ("T1w.json", SIDECAR),
    ],
)
def test_kinds_of_json(name, kind):
    assert kind_of(name) == kind
    assert kind_of("sub-01/anat/sub-01_desc-x_mask.json", derivative=True) == DERIVATIVE


def test_a_derivative_points_to_no_raw_file_and_keeps_no_identifier():
    raw = {"EchoTime": 1, "IntendedFor": "bids::x", "StationName": "MRC1", "FlipAngle": 8}
    assert shareable(raw) == {"EchoTime": 1, "FlipAngle": 8}


def random_sidecar(rng):
    """A sidecar of fields that may be shared, with values that say nothing."""
    names = rng.choice(sorted(fields.SHAREABLE), 12, replace=False)
    draw = [
        lambda: float(rng.normal()),
        lambda: int(rng.integers(1000)),
        lambda: bool(rng.integers(2)),
        lambda: "".join(rng.choice(list("abcXYZ _-"), 9)),
        lambda: rng.normal(size=3).round(6).tolist(),
        lambda: None,
        lambda: [],
        lambda: {"a": [1, "b"]},
    ]
    return {str(name): draw[rng.integers(len(draw))]() for name in names}


@pytest.mark.parametrize("seed", range(40))
def test_clean_sidecars_stay_as_they_are(seed):
    content = random_sidecar(np.random.default_rng(seed))
    assert clean_json(content) == (content, [])


@pytest.mark.parametrize("seed", range(20))
def test_cleaning_twice_is_cleaning_once(seed):
    rng = np.random.default_rng(seed)
    content = random_sidecar(rng)
    secrets = [NAME, UID, "2019-03-14", "at 13:45:12 in /home/jane", [UID, "ok"], {"PatientID": 3, "x": NAME}]
    for name in rng.choice(sorted(content), 5, replace=False):
        content[str(name)] = secrets[rng.integers(len(secrets))]
    before = json.dumps(content)
    cleaned, leaks = clean_json(content)
    assert leaks and clean_json(cleaned) == (cleaned, [])
    assert json.dumps(content) == before


@pytest.mark.parametrize(
    "cell, units, expected",
    [
        ("89", "", "89"),
        ("89.9", "year", "89"),
        ("90", "", "89"),
        ("90+", "", "89"),
        ("90Y", "", "89"),
        (">89", "", ">89"),
        (">90", "", "89"),
        ("091Y", "", "89"),
        ("34", "", "34"),
        ("n/a", "", "n/a"),
        ("1079", "month", "1068"),
        ("95", "month", "95"),
        ("85-94", "", "n/a"),
        ("90-99", "", "89"),
        ("20-29", "", "20-29"),
        ("adult", "", "adult"),
        ("89+", "", "89+"),
    ],
)
def test_ages_above_89_are_pooled(cell, units, expected):
    assert pool_age(cell, units) == expected


def test_columns_nobody_described_go_and_described_ones_stay():
    table = Table.parse("participant_id\tage\tscore\tslot\tname\nsub-01\t34\t7\t3\tJane\n")
    described = {"score": {"Description": "points"}, "slot": {}, "name": {"Description": "her name"}}
    cleaned, leaks = clean_table(table, "participants", described=described)
    assert cleaned.columns == ("participant_id", "age", "score")
    assert {(leak.field, leak.kind) for leak in leaks} == {("slot", "undescribed-column"), ("name", "person-name")}


def test_tables_of_data_keep_numbers_that_look_like_dates():
    table = Table.parse("name\tonset\tnote\toperator\tresponse\nFz\t20190314\tA4\t+\t13:45:12\n")
    assert clean_table(table) == (table, [])


def test_other_dates_in_tables_of_people_go():
    table = Table.parse("participant_id\tvisit\nsub-01\t14.03.2019\nsub-02\tnone\n")
    cleaned, (leak,) = clean_table(table, "participants", described={"visit": {"Description": "day"}})
    assert cleaned.column("visit") == ["n/a", "none"] and leak.kind == "acquisition-date"


def test_short_lines_and_marks_at_the_start():
    table = Table.parse("\ufeffparticipant_id\tage\nsub-01\n\n")
    assert table == Table(("participant_id", "age"), (("sub-01", "n/a"),))
    assert clean_table(Table.parse(""), "participants")[1] == []


@pytest.mark.parametrize("seed", range(20))
def test_shifts_keep_intervals_and_end_in_1925_or_earlier(seed):
    rng = np.random.default_rng(seed)
    start = datetime(2000, 1, 1)
    moments = [
        start + timedelta(seconds=int(rng.integers(10**9)), microseconds=int(rng.integers(10**6))) for _ in range(6)
    ]
    table = Table(("filename", "acq_time"), tuple((str(i), m.isoformat()) for i, m in enumerate(moments)))
    shift = draw_shift(dates_in(table))
    cleaned, _ = clean_table(table, "scans", shift=shift)
    moved = [parse_date(cell) for cell in cleaned.column("acq_time")]
    assert [moment + shift for moment in moments] == moved
    assert 1800 < min(moved).year and max(moved).year < 1926
    assert clean_table(cleaned, "scans", shift=shift) == (cleaned, [])
    assert earlier_shift(dates_before_and_after(table, cleaned, "filename")) == shift


def test_two_draws_differ_and_nothing_needs_none():
    moments = [datetime(2019, 3, 14)]
    assert len({draw_shift(moments) for _ in range(5)}) > 1
    assert draw_shift([]) is None


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("2019-03-14T13:45:12", "1919-04-08T13:45:12"),
        ("2019-03-14T13:45:12.5", "1919-04-08T13:45:12.500000"),
        ("2019-03-14T13:45:12Z", "1919-04-08T13:45:12Z"),
        ("2019-03-14", "1919-04-08"),
        ("1912-03-14T13:45:12", "1912-03-14T13:45:12"),
        ("2019-02-31", "2019-02-31"),
        ("n/a", "n/a"),
    ],
)
def test_dates_keep_their_form(cell, expected):
    assert shift_date(cell, timedelta(days=-36500)) == expected


def test_values_are_never_shown_whole():
    for value in (NAME, "Li", "x", "0048151623"):
        assert value not in shorten(value).split("…")[0]
        assert value not in json.dumps(Finding("f", "x", "e-mail", value).as_dict()["value"].split(" (")[0])
    assert shorten("") == ""
