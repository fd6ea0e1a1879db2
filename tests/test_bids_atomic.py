"""Files come to their places whole, and their names with them."""

import os
import stat

from bids_cpmae.bids.atomic import put_files


def test_content_is_on_the_disk_before_its_name_and_the_name_before_what_follows(tmp_path, monkeypatch):
    target, seen, folders, sync = tmp_path / "sub-1" / "table.tsv", [], [], os.fsync

    def watched(number):
        sync(number)
        seen.append((stat.S_ISDIR(os.fstat(number).st_mode), target.exists()))
        if seen[-1][0]:
            folders.append(os.fstat(number).st_ino)

    monkeypatch.setattr(os, "fsync", watched)
    assert put_files({target: b"a\tb\n"})
    assert seen[0] == (False, False) and seen[1:] and set(seen[1:]) == {(True, True)}
    assert folders[:2] == [target.parent.stat().st_ino, tmp_path.stat().st_ino]
    before = len(seen)
    assert not put_files({target: b"a\tb\n"}) and len(seen) == before
    assert [path.name for path in target.parent.iterdir()] == ["table.tsv"]
