"""The stopwatch and its errors; the stages themselves are tested where they live."""

import time
from argparse import ArgumentParser

import nibabel as nib
import numpy as np
import pytest

from bids_cpmae.errors import InputError
from bids_cpmae.evaluation import bench


def test_stopwatch_measures_time_and_memory():
    watch = bench.Stopwatch()
    with watch.stage("sleep"):
        time.sleep(0.05)
    with watch.stage("fill"):
        kept = np.ones(50_000_000)
    (_, slept, before), (_, _, after) = watch.stages
    assert 0.05 <= slept < 5
    assert after >= before > 0 and after > kept.nbytes / 1e9


def test_the_default_scan_is_the_template(tmp_path):
    image = nib.load(bench.template_scan(tmp_path / "t.nii.gz"))
    assert image.shape == (256, 256, 256) and image.get_data_dtype() == np.int16
    assert 300 < np.percentile(np.asarray(image.dataobj)[100:156, 110:150, 150:190], 90) < 800


def test_a_missing_scan_is_named(tmp_path):
    parser = ArgumentParser()
    bench.add_arguments(parser)
    with pytest.raises(InputError, match="absent"):
        bench.main(parser.parse_args([str(tmp_path / "absent.nii.gz")]))
