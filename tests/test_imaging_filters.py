"""Filters in threads and by blocks yield what SciPy and NumPy do."""

import threading

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from bids_cpmae.imaging.fields import blocks
from bids_cpmae.imaging.filters import gaussian
from bids_cpmae.imaging.threads import side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("sigma", [1.3, (0.0, 2.0, 0.7)])
@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_threads_change_no_bit_of_a_gaussian(threads, sigma, mode):
    volume = np.random.default_rng(0).standard_normal((71, 64, 59), dtype=np.float32)
    found = gaussian(volume, sigma, mode=mode, truncate=2.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, gaussian_filter(volume, sigma, mode=mode, truncate=2.5))


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_blocks_are_reduced_with_zeros_at_the_end(reduce):
    volume = np.random.default_rng(1).random((7, 6, 5), dtype=np.float32)
    before = volume.copy()
    found = blocks(volume, np.array([2, 1, 3]), reduce)
    padded = np.pad(volume, [(0, 1), (0, 0), (0, 1)]).reshape(4, 2, 6, 1, 2, 3)
    np.testing.assert_allclose(found, getattr(padded, reduce)(axis=(1, 3, 5)), rtol=1e-6)
    np.testing.assert_array_equal(volume, before)


def test_calls_side_by_side_return_in_their_order_and_raise(threads):
    meet = threading.Barrier(2 if threads > 1 else 1, timeout=60)
    assert side_by_side(lambda: meet.wait() * 0 + 1, lambda: meet.wait() * 0 + 2) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda: 1, lambda: 1 / 0)
