"""Names that give away what they hold: of fields and columns, of files and folders."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from functools import lru_cache

from bids_cpmae.bids.privacy.values import PATTERNS

# a name is taken apart into words (camel case, underscores); these words, or these runs of words, decide
WORDS = {
    "person-name": "initials surname nickname forename",
    "birth": "dob birth birthday birthdate yob",
    "contact": "email mail phone telephone telefon mobile fax address street zip zipcode postcode",
    "identifier": "mrn ssn nhs accession passport insurance",
    "uid": "uid guid uuid",
    "staff": "operator operators physician physicians doctor radiologist technician technologist experimenter "
             "interviewer examiner investigator clinician",
    "place": "institution institutional hospital clinic department city town county",
    "device": "hostname workstation",
    "comment": "comment comments note notes remark remarks freetext",
}  # fmt: skip
RUNS = {
    "person-name": "patientname subjectname participantname personname firstname lastname familyname givenname "
                   "middlename maidenname fullname mothername fathername parentname guardianname contactname",
    "birth": "dateofbirth placeofbirth",
    "contact": "postalcode homepage username userid",
    "identifier": "patientid otherpatient medicalrecord nationalid socialsecurity hospitalid healthcardnumber "
                  "studyid admissionid visitnumber",
    "uid": "studyinstance seriesinstance sopinstance frameofreference",
    "device": "serialnumber stationname deviceid computername",
    "date": "acquisitiondate studydate seriesdate contentdate scandate admissiondate dischargedate deathdate "
            "dateofdeath proceduredate",
    "time": "acquisitiontime studytime seriestime contenttime",
    "comment": "patienthistory studydescription",
}  # fmt: skip
# in tables of data (events, channels) a note is a tone and an operator is a plus sign
OF_PEOPLE = ("person-name", "birth", "contact", "identifier", "uid")
SYSTEM_FILES = (".ds_store", "._*", "thumbs.db", "desktop.ini", ".trash*", ".spotlight*", ".fseventsd", "$recycle.bin",
                ".nfs*")  # fmt: skip
CRASH_FILES = ("crash-*.txt", "crash-*.pklz", "crash*.pkl", "core.[0-9]*", "*.swp", "*.swo", ".*.sw?", "*~", "#*#",
               ".bash_history", ".netrc")  # fmt: skip
SCANNER_FILES = (".dcm", ".ima", ".dicom", ".par", ".rec", ".sdat", ".spar", ".rda", ".twix", ".nrrd.dcm")
SCANNER_NAMES = ("dicomdir", "p?????.7", "meas_*.dat")


def words_of(name: str) -> list[str]:
    """``PatientBirthDate2`` or ``patient_birth_date_2`` as patient, birth, date, 2."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


@lru_cache(maxsize=4096)
def identifying(name: str) -> str | None:
    """The kind of identifier that a field or column of this name holds, or None."""
    words = words_of(name)
    joined = "".join(words)
    for kind, runs in RUNS.items():
        if any(run in joined for run in runs.split()):
            return kind
    for kind, single in WORDS.items():
        if set(words) & set(single.split()) or (kind == "uid" and joined.endswith("uid")):
            return kind
    return None


def is_age(column: str) -> bool:
    """Whether a column holds ages: ``age``, ``age_at_scan``, ``AgeYears``."""
    return "age" in words_of(column)


def date_in_name(name: str) -> str | None:
    """A date in the name of a file or folder, if any."""
    for pattern in ("year-first", "compact", "year-last"):
        _, regex, accept = PATTERNS[pattern]
        # underscores and dashes are how names are put together
        for found in regex.finditer(name.replace("_", " ")):
            if accept(found):
                return found.group()
    return None


def telling_file(name: str) -> str | None:
    """The kind of a file that should not be in a dataset at all, or None."""
    lower = name.lower()
    for kind, patterns in (("system-file", SYSTEM_FILES), ("crash-file", CRASH_FILES), ("scanner-file", SCANNER_NAMES)):
        if any(fnmatch(lower, pattern) for pattern in patterns):
            return kind
    return "scanner-file" if lower.endswith(SCANNER_FILES) else None
