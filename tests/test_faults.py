"""The table of faults: each is done for real to the real command line, and the output tree looked at after it."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset, write_tiny_weights
from disturbed import Judge, Moment, Run, content, digest, done_nodes, finish, places_of, verdicts
from heads import as_image, somebody

from bids_cpmae.bids.naming import outputs_of
from bids_cpmae.imaging.resample import resample

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
SCANS = tuple(f"sub-{label}/anat/sub-{label}_T1w.nii.gz" for label in ("01", "02"))
FIRST, SECOND = (outputs_of(scan) for scan in SCANS)


def node(name, label="01"):
    """A node's folder, as part of a path."""
    return f"sub_{label}_wf/scan_sub_{label}_T1w_wf/{name}"


def write_inputs(place, like=None):
    """Two heads of nobody at 4 mm, and networks that draw rubble; or those of another place."""
    if like:
        shutil.copytree(like / "raw", place / "raw")
        shutil.copy(like / "tiny.safetensors", place)
        return place
    raw = write_dataset(place / "raw")
    for number, scan in enumerate(SCANS):
        image = somebody(number)
        affine = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        shape = tuple(-(-size // 2) for size in image.shape)
        coarse = resample(np.asarray(image.dataobj, np.float32), image.affine, affine, shape)
        (raw / scan).parent.mkdir(parents=True)
        nib.save(as_image(coarse, affine), raw / scan)
    write_tiny_weights(place / "tiny.safetensors")
    return place


@pytest.fixture(autouse=True)
def none_goes_on():
    """What a test that fails has started ends with it, held or not."""
    before = len(Run.started)
    yield
    for run in Run.started[before:]:
        for process in run.left():
            os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbs, begun; it goes on while others are killed."""
    place = write_inputs(tmp_path_factory.mktemp("undisturbed"))
    run = Run(place)
    yield run, place
    if run.process.poll() is None:
        run.kill_group()


@pytest.fixture(scope="module")
def undisturbed(reference):
    """What an undisturbed run leaves in the output tree."""
    run, place = reference
    assert run.end() == 0, run.text
    return content(place / "out")


@pytest.fixture(scope="module")
def judge(reference):
    return Judge(reference[1] / "raw", SCANS)


# --- killed: the whole group at once, as by a scheduler whose patience is at its end, or by a machine that stops

KILLS = {
    "indexing": Moment(r"/raw/sub-02$", "list"),
    "locate": node("locate_face"),
    "located, half written": Moment(node("locate_face/brain.nii.gz")),
    "align": node("align_head"),
    "remodel": node("remodel_face"),
    "remodelled": Moment(node("remodel_face/head.npy")),
    "compose": Moment(node("compose_face/refaced.nii.gz")),
    "certify": Moment("refaced.nii.gz", "read", cwd=node("certify_scan")),
    "measure": Moment("to_head.npz", "read", cwd=node("measure_scan")),
    "publish, before the mask": Moment(f"/{FIRST.mask.name}", "rename"),
    "publish, before the mask's sidecar": Moment(f"/{FIRST.mask_sidecar.name}", "rename"),
    "publish, before the image's sidecar": Moment(f"/{FIRST.image_sidecar.name}", "rename"),
    "publish, before the image": Moment(f"/{FIRST.image.name}", "rename"),
    "published, no verdict": Moment(r"/verdicts/sub-01.*\.json", "rename"),
    "a participant's table": Moment(r"/logs/sub-01_desc-refacing_verdicts.tsv", "rename"),
    "the table of all": Moment(r"/out/desc-refacing_verdicts.tsv", "rename"),
    "a page": Moment(r"/out/sub-01.html", "rename"),
    "the page of all": Moment(r"/out/group.html", "rename"),
}  # fmt: skip


@pytest.fixture(scope="module")
def killed(tmp_path_factory, reference):
    """A tree that is killed again and again; every run finds what the one before has left."""
    return write_inputs(tmp_path_factory.mktemp("killed"), like=reference[1])


@pytest.mark.parametrize("when", KILLS)
def test_killed(when, killed, judge):
    moment, before = KILLS[when], digest(killed / "raw")
    done, written = done_nodes(killed / "work"), places_of(killed / "out")
    if isinstance(moment, Moment):
        run = Run(killed, hold=moment)
        run.held()
    else:
        # in the midst of it, a second after the node has begun
        run = Run(killed)
        run.wait_for(lambda: list(killed.glob(f"work/bids_cpmae_wf/{moment}/_0x*_unfinished.json")))
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1)
    run.kill_group()
    assert run.end() == 128 + signal.SIGKILL
    assert judge.problems(killed / "out", killed=True) == []
    assert digest(killed / "raw") == before
    assert done.items() <= done_nodes(killed / "work").items()
    assert written.items() <= places_of(killed / "out").items()


def test_after_all_kills_a_run_does_what_is_left(killed, judge, undisturbed):
    done, written = done_nodes(killed / "work"), places_of(killed / "out")
    assert written
    run = finish(killed)
    assert run.process.returncode == 0, run.text
    assert judge.problems(killed / "out") == []
    assert content(killed / "out") == undisturbed
    assert done.items() <= done_nodes(killed / "work").items()
    assert places_of(killed / "out") == written


@pytest.fixture(scope="module")
def worked(killed, undisturbed):
    """A work folder in which all is done, for what is disturbed late; made here if the tests before were left out."""
    if not (killed / "out" / "group.html").exists():
        assert finish(killed).process.returncode == 0
    return killed


def forget(place, name, label="02"):
    """Have a node run again, and what hangs on it."""
    shutil.rmtree(place / "work" / "bids_cpmae_wf" / node(name, label), ignore_errors=True)


def ends_as_undisturbed(place, judge, undisturbed, *, kept=("01",)):
    """A second run does what is left, and only that, and the tree is the same as if nothing had happened."""
    done = done_nodes(place / "work")
    done = {name: time for name, time in done.items() if any(f"sub_{one}_" in name for one in kept)}
    written = places_of(place / "out") if kept else {}
    run = finish(place)
    assert run.process.returncode == 0, run.text
    assert judge.problems(place / "out") == []
    assert content(place / "out") == undisturbed
    assert done.items() <= done_nodes(place / "work").items()
    assert written.items() <= places_of(place / "out").items()


# --- told to stop: what is asked, when, whom (the run alone or all its processes), exit code

COMPOSING = Moment(node("compose_face/refaced.nii.gz", "02"))
TABLES = Moment(r"/logs/sub-01_desc-refacing_verdicts.tsv", "rename")
PAGES = Moment(r"/out/sub-02.html", "rename")
STOPS = {
    "SIGTERM to the run, indexing": (signal.SIGTERM, KILLS["indexing"], False, 143),
    "SIGTERM to the run": (signal.SIGTERM, COMPOSING, False, 143),
    "SIGTERM to all": (signal.SIGTERM, COMPOSING, True, 143),
    "SIGINT to the run": (signal.SIGINT, COMPOSING, False, 130),
    "SIGINT to all": (signal.SIGINT, COMPOSING, True, 130),
    "SIGTERM to the run, at its tables": (signal.SIGTERM, TABLES, False, 143),
    "SIGINT to all, at its tables": (signal.SIGINT, TABLES, True, 130),
    "SIGTERM to the run, at its pages": (signal.SIGTERM, PAGES, False, 143),
    "SIGTERM to all, at its pages": (signal.SIGTERM, PAGES, True, 143),
}  # fmt: skip
SOON_S = 20


@pytest.fixture(scope="module")
def stopped(worked):
    """A tree in which the first scan is soon done, and the second is worked on."""
    shutil.rmtree(worked / "out", ignore_errors=True)
    forget(worked, "compose_face")
    return worked


@pytest.mark.parametrize("how", STOPS)
def test_told_to_stop(how, stopped, judge):
    number, moment, everybody, code = STOPS[how]
    before, out = digest(stopped / "raw"), stopped / "out"
    # what is the same is not written again
    shutil.rmtree(out, ignore_errors=True)
    run = Run(stopped, hold=moment)
    if moment is COMPOSING:
        run.wait_for((stopped / "work" / "verdicts" / f"{SCANS[0].replace('/', '__')}.json").exists)
    run.held()
    (run.kill_group if everybody else run.process.send_signal)(number)
    if moment is TABLES:
        run.let_go()
    assert run.end(SOON_S) == code, run.text
    assert "run again with the same -w" in run.text and "Traceback" not in run.text, run.text
    assert judge.problems(out) == []
    assert digest(stopped / "raw") == before
    if moment is KILLS["indexing"]:
        assert not out.exists()
    else:
        found = verdicts(out)
        assert found["01"][0] == "REVIEW"
        assert (found["02"] == ("SKIPPED", "the run stopped before this scan was done")) == (moment is COMPOSING)


def test_a_killed_run_leaves_no_worker_behind(stopped, judge):
    """Killed alone, while a worker is deep in a registration and hears nothing."""
    forget(stopped, "align_head")
    run = Run(stopped)
    run.wait_for(lambda: list(stopped.glob(f"work/bids_cpmae_wf/{node('align_head', '02')}/_0x*_unfinished.json")))
    run.process.kill()
    assert run.end() == 128 + signal.SIGKILL
    assert judge.problems(stopped / "out", killed=True) == []


def test_after_all_stops_a_run_does_what_is_left(stopped, judge, undisturbed):
    ends_as_undisturbed(stopped, judge, undisturbed)


# --- disks that are full, or that nobody may write to


@pytest.fixture
def disk():
    """Mounts a small disk in memory; given back at the end."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk to fill")
    there = []

    def mount(folder, size, *more):
        folder.mkdir(exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode and not more:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        assert not done.returncode, done.stderr
        there.append(folder)

    yield mount
    for folder in reversed(there):
        subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder, *options):
    words = ["mount", "-o", ",".join(["remount", *options]), str(folder)]
    for _ in range(100):
        if subprocess.run(words, capture_output=True).returncode == 0:
            return
        # a file that is just being written there keeps it from becoming read-only
        time.sleep(0.2)
    subprocess.run(words, check=True)


def test_output_full_or_read_only(worked, disk, judge, undisturbed):
    out, before = worked / "out", digest(worked / "raw")
    shutil.rmtree(out, ignore_errors=True)
    disk(out, "300k")
    # room for all but an image
    image = (out / FIRST.image).parent
    run = finish(worked)
    assert run.process.returncode == 1, run.text
    for verdict, reason in verdicts(out).values():
        assert (verdict, "No space left on device" in reason) in (("FAIL", True), ("REVIEW", False)), reason
    assert "FAIL" in {verdict for verdict, _ in verdicts(out).values()}
    assert judge.problems(out) == []
    # no room for a table
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (out / "something").mkdir()
    with open(out / "something" / "else", "wb", buffering=0) as file, pytest.raises(OSError):
        while file.write(bytes(4096)):
            pass
    run = finish(worked)
    assert run.process.returncode == 73 and "No space left on device" in run.text, run.text
    assert not list(out.rglob("*.nii.gz")) and "Traceback" not in run.text
    shutil.rmtree(out / "something")
    # nobody may write
    remount(out, "size=50m", "ro")
    run = finish(worked)
    assert run.process.returncode == 73 and "cannot be written to" in run.text, run.text
    # nobody may write any more
    remount(out, "rw")
    run = Run(worked, hold=Moment(rf"/\.{FIRST.image.name}.*\.partial"))
    run.held()
    remount(out, "ro")
    run.let_go()
    assert run.end() == 73 and "Read-only file system" in run.text and "Traceback" not in run.text, run.text
    assert judge.problems(out, killed=True) == []
    remount(out, "rw")
    ends_as_undisturbed(worked, judge, undisturbed, kept=("01", "02"))
    assert image.is_dir() and digest(worked / "raw") == before


def test_work_folder_full_or_read_only(worked, disk, judge, undisturbed):
    out, work, before = worked / "out", worked / "work", digest(worked / "raw")
    shutil.rmtree(out, ignore_errors=True)
    forget(worked, "compose_face")
    aside = work.rename(worked / "aside")
    disk(work, "2g")
    subprocess.run(["cp", "-a", f"{aside}/.", str(work)], check=True)
    # too little for an image
    remount(work, f"size={shutil.disk_usage(work).used + (100 << 10)}", "ro")
    run = finish(worked)
    assert run.process.returncode == 73 and "work folder cannot be written to" in run.text, run.text
    assert not list(out.rglob("*.nii.gz"))
    remount(work, "rw")
    run = finish(worked)
    assert run.process.returncode == 1, run.text
    assert verdicts(out)["01"][0] == "REVIEW"
    assert verdicts(out)["02"][0] == "FAIL" and "No space left on device" in verdicts(out)["02"][1], verdicts(out)
    assert judge.problems(out) == []
    remount(work, "size=2g")
    ends_as_undisturbed(worked, judge, undisturbed)
    assert digest(worked / "raw") == before
    subprocess.run(["umount", "-l", str(work)], check=True)
    work.rmdir()
    aside.rename(work)


# --- the same scans again, to another end


def test_another_face_killed_half_way(worked, judge, undisturbed):
    """What was said of the old image is withdrawn before it goes."""
    if content(worked / "out") != undisturbed:
        finish(worked)
    run = Run(worked, "--random-seed", "1", hold=KILLS["publish, before the image"])
    run.held()
    run.kill_group()
    run.end()
    assert judge.problems(worked / "out", killed=True) == []
    assert not (worked / "out" / FIRST.image).exists()
    assert verdicts(worked / "out")["01"] == ("SKIPPED", "the run stopped before this scan was done")
    ends_as_undisturbed(worked, judge, undisturbed, kept=())


# --- what a run needs, taken away: memory, workers, inputs


def test_no_memory_killed_workers_and_lost_inputs(worked, judge, undisturbed):
    out, before = worked / "out", digest(worked / "raw")
    shutil.rmtree(out, ignore_errors=True)
    forget(worked, "remodel_face")
    moment = Moment("frame.npz", "read", cwd=node("remodel_face", "02"))
    # not enough for the network
    run = Run(worked, hold=moment)
    [worker] = run.held()
    used = int(open(f"/proc/{worker}/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker, resource.RLIMIT_AS, (used + (32 << 20),) * 2)
    run.let_go()
    assert run.end() == 1, run.text
    assert verdicts(out)["01"][0] == "REVIEW"
    assert verdicts(out)["02"][0] == "FAIL" and "memory" in verdicts(out)["02"][1], verdicts(out)["02"]
    assert judge.problems(out) == []
    # killed, as the kernel does for want of memory; since it is tried once more, so is what workers are forked from
    run = Run(worked, hold=moment)
    [worker] = run.held()
    os.kill(worker, signal.SIGKILL)
    [again] = set(run.held(2)) - {worker}
    os.kill(int(open(f"/proc/{again}/stat").read().split()[3]), signal.SIGKILL)
    assert run.end() == 1, run.text
    assert verdicts(out)["01"][0] == "REVIEW"
    assert verdicts(out)["02"][0] == "FAIL" and "memory" in verdicts(out)["02"][1], verdicts(out)["02"]
    assert judge.problems(out) == []
    # not enough to begin
    run = finish(worked, limit_kb=400_000)
    assert run.process.returncode == 71 and "memory" in run.text and "Traceback" not in run.text, run.text
    assert judge.problems(out) == []
    # an input cut short, and one removed
    forget(worked, "compose_face", "01")
    run = Run(worked, hold=Moment("frame.npz", "read", cwd="compose_face|remodel_face"))
    run.held(2)
    raw = worked / "raw"
    shutil.copytree(raw, worked / "safe")
    os.truncate(raw / SCANS[0], 5000)
    (raw / SCANS[1]).unlink()
    run.let_go()
    assert run.end() == 1, run.text
    assert {label: verdict for label, (verdict, _) in verdicts(out).items()} == {"01": "FAIL", "02": "FAIL"}
    assert "restore the file" in verdicts(out)["01"][1] and "no such file" in verdicts(out)["02"][1], verdicts(out)
    assert not list(out.rglob("*.nii.gz")) and judge.problems(out) == []
    shutil.rmtree(raw)
    (worked / "safe").rename(raw)
    assert digest(raw) == before
    ends_as_undisturbed(worked, judge, undisturbed, kept=())


# --- two runs at once into one tree


def test_two_runs_for_the_same_participants(worked, reference, judge, undisturbed):
    """From the same work folder the second is refused; from another, both come to the same."""
    other = reference[1] / "work"
    shutil.rmtree(worked / "out", ignore_errors=True)
    moment = Moment(rf"/\.{FIRST.image.name}.*\.partial")
    runs = [Run(worked, hold=moment), Run(worked, hold=moment, work=other)]
    for run in runs:
        run.held()
    third = finish(worked)
    assert third.process.returncode == 73 and "another run" in third.text, third.text
    for run in runs:
        run.let_go()
    assert [run.end() for run in runs] == [0, 0], [run.text for run in runs]
    assert judge.problems(worked / "out") == []
    assert content(worked / "out") == undisturbed


def test_two_runs_for_different_participants(worked, judge, undisturbed):
    """At once, from one work folder."""
    shutil.rmtree(worked / "out", ignore_errors=True)
    # about to write the tables
    moment = Moment(r"/verdicts/sub-.*\.json", "read")
    runs = [Run(worked, "--participant-label", label, hold=moment) for label in ("01", "02")]
    for run in runs:
        run.held()
    for run in runs:
        run.let_go()
    assert [run.end() for run in runs] == [0, 0], [run.text for run in runs]
    assert judge.problems(worked / "out") == []
    assert set(verdicts(worked / "out")) == {"01", "02"}
    ends_as_undisturbed(worked, judge, undisturbed, kept=("01", "02"))
