"""Files come to their places whole, and their names with them."""

import os
import stat

from bids_cpmae.bids.atomic import put_files


def test_content_is_on_the_disk_before_its_name_and_the_name_before_what_follows(tmp_path, monkeypatch):
    target, seen, sync = tmp_path / "sub-1" / "table.tsv", [], os.fsync

    def watched(number):
        sync(number)
        seen.append((stat.S_ISDIR(os.fstat(number).st_mode), target.exists()))

    monkeypatch.setattr(os, "fsync", watched)
    assert put_files({target: b"a\tb\n"})
    assert seen == [(False, False), (True, True)]
    assert not put_files({target: b"a\tb\n"}) and len(seen) == 2
    assert [path.name for path in target.parent.iterdir()] == ["table.tsv"]
