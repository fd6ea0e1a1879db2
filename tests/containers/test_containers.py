"""Both images are built and reface the demo head: offline, read-only, as a user whom they do not know."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bids_trees import write_dataset
from engines import UID, VERSION, Apptainer, Docker, find_apptainer, find_docker, kept, tools

from bids_cpmae.bids.demo import write_demo
from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.bids.validation import errors_of, find_validator

MOST_BYTES = 2.2e9
# with the default seed the demo head is a REVIEW, since its forehead stays much as it was
OPTIONS = ("--random-seed", 2, "--nprocs", 1, "--omp-nthreads", 1)


@dataclass
class Run:
    """An image that was built, and what it wrote."""

    engine: Docker | Apptainer
    out: Path


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*") if path.is_file()}  # fmt: skip


def make_demo(root: Path) -> tuple[Path, dict[str, str]]:
    """The demo dataset and its hashes."""
    write_demo(root)
    return root, hashes(root)


def build_and_run(engine: Future, demo: Future, folder: Path) -> Run:
    """Build the image, reface the demo head."""
    image, out, work = engine.result(), folder / "out", folder / "work"
    image.build()
    for path in (out, work):
        path.mkdir(parents=True)
        path.chmod(0o777)
    mounts = {demo.result()[0]: "/bids:ro", out: "/out", work: "/work"}
    image.run("bids-cpmae", "/bids", "/out", "participant", "-w", "/work", *OPTIONS, mounts=mounts)
    return Run(image, out)


@pytest.fixture(scope="session")
def background():
    """For what may take minutes beside the tests that follow."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(background):
    """Where images and outputs lie; taken away unless it is to be kept."""
    # podman does not hear of a container's end, and waits for 20 s, where the path of its storage is long
    path = kept() or Path(tempfile.mkdtemp(prefix="cpmae_"))
    path.mkdir(parents=True, exist_ok=True)
    # users of containers have to get in
    path.chmod(0o755)
    yield path
    if not kept():
        background.submit(shutil.rmtree, path, ignore_errors=True)


@pytest.fixture(scope="module")
def made(folder):
    """Both images at work side by side, on a core each; what is or was to come of them."""
    for name in ("demo", "docker", "singularity"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with ThreadPoolExecutor() as pool:
        demo = pool.submit(make_demo, folder / "demo")
        docker = pool.submit(find_docker, folder)
        singularity = pool.submit(find_apptainer, folder, docker)
        docker_run = pool.submit(build_and_run, docker, demo, folder / "docker")
        singularity_run = pool.submit(build_and_run, singularity, demo, folder / "singularity")
    yield {"demo": demo, "docker": docker_run, "singularity": singularity_run}
    if docker_run.exception() is None:
        engine, out = docker_run.result().engine, docker_run.result().out
        # they belong to a user of their own, and others could not take them away
        mounts = {out: "/out", out.with_name("work"): "/work"}
        engine.run("sh", "-c", "chmod -R a+rwX /out/* /work/*", mounts=mounts)
        # podman of the tools has its storage in the folder
        if not (kept() or tools()):
            engine.remove()


@pytest.fixture(params=["docker", "singularity"])
def run(request, made) -> Run:
    """Each of the two."""
    return made[request.param].result()


@pytest.fixture
def docker(made) -> Run:
    """The image of the Dockerfile."""
    return made["docker"].result()


def test_demo_head_passes_and_is_certified(run):
    (row,) = read_tsv(run.out / "desc-refacing_verdicts.tsv")
    assert (row["verdict"], row["brain_voxels_changed"]) == ("PASS", "0")
    assert int(row["brain_voxels"]) > 10**6


def test_voxels_outside_the_mask_are_the_source(run, made):
    anat = run.out / "sub-demo" / "anat"
    source = np.asarray(nib.load(made["demo"].result()[0] / "sub-demo" / "anat" / "sub-demo_T1w.nii.gz").dataobj)
    refaced = np.asarray(nib.load(anat / "sub-demo_desc-refaced_T1w.nii.gz").dataobj)
    mask = np.asarray(nib.load(anat / "sub-demo_mod-T1w_desc-face_defacemask.nii.gz").dataobj) > 0
    assert np.array_equal(refaced[~mask], source[~mask])
    assert (refaced[mask] != source[mask]).mean() > 0.5


@pytest.mark.skipif(find_validator() is None, reason="bids-validator-deno is not installed")
def test_output_is_valid_bids(run):
    assert errors_of(run.out) == []


def test_input_is_untouched(run, made):
    root, before = made["demo"].result()
    assert hashes(root) == before


def test_both_images_write_the_same(made):
    docker, singularity = (made[name].result() for name in ("docker", "singularity"))
    assert hashes(docker.out) == hashes(singularity.out)


def test_version_is_the_one_given(run):
    assert run.engine.run("bids-cpmae", "--version").split() == ["bids_cpmae", VERSION]


def test_workbench_finds_nothing_in_the_output(run):
    run.engine.run("cpmae", "leaks", "/out", mounts={run.out: "/out:ro"})


def test_invalid_input_is_refused(run, folder):
    bad = write_dataset(folder / "docker" / "bad", "sub-1/anat/sub-01_T1w.nii.gz")
    with pytest.raises(RuntimeError, match="exit code 16"):
        run.engine.run("bids-cpmae", "/bids", "/tmp/out", "participant", mounts={bad: "/bids:ro"})


def test_image_is_small_labelled_and_not_root(docker):
    assert int(docker.engine.inspect(".Size")) <= MOST_BYTES
    assert docker.engine.inspect(".Config.User").split(":")[0] not in ("", "0", "root")
    assert docker.engine.inspect('index .Config.Labels "org.opencontainers.image.version"') == VERSION


def test_files_belong_to_whoever_ran_it(docker):
    if docker.engine.program == "podman" and os.getuid():
        pytest.skip("podman without root shifts user ids")
    assert {path.stat().st_uid for path in docker.out.rglob("*")} == {UID}
