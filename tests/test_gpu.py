"""The networks on a GPU give what they give on a processor: ``pytest tests/test_gpu.py``, without ANTs or pybids."""

import time

import numpy as np
import pytest
import torch

from bids_cpmae.imaging.template import SPACING, load_template
from bids_cpmae.model.cpmae import CPMAE, code_box
from bids_cpmae.model.demo import demo_head
from bids_cpmae.model.regions import Places, cells
from bids_cpmae.model.vqvae import STRIDE
from bids_cpmae.model.weights import load_cpmae

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
# of 255: what is written is matched to a scan in units far coarser than this
STORED = 0.5 / 255


@pytest.fixture(scope="module")
def models() -> dict[str, CPMAE]:
    loaded = {}
    for device in ("cpu", "cuda"):
        load_cpmae.cache_clear()
        loaded[device] = load_cpmae(None, device)
    load_cpmae.cache_clear()
    return loaded


@pytest.fixture(autouse=True)
def single_precision(monkeypatch):
    """The processor too reckons in single precision, where it could in half."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, bool, raising=False)


@pytest.fixture(scope="module")
def head(models):
    """The demo head (256, 256, 256) with a noise that no code holds, and its face mask, True = to be made anew."""
    volume = demo_head(models["cpu"])
    volume = np.clip(volume + 0.02 * np.random.default_rng(0).standard_normal(volume.shape), 0, 1).astype(np.float32)
    blank = load_template().replaced_with_air()
    for axis in range(3):
        blank = blank.repeat(SPACING, axis)
    return volume, blank & ~models["cpu"].anatomy.brain


def boxes(model: CPMAE, places: Places) -> list[tuple[slice, ...]]:
    """The boxes of codes in and near the head, and in the brain."""
    return [code_box(part, 0) for part in (places.reach, cells(model.anatomy.brain, STRIDE))]


@torch.no_grad()
def codes_on(model: CPMAE, volume: np.ndarray, blank: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, Places]:
    """Non-brain and brain codes of a head, and the places to fill."""
    inside = model.anatomy.brain
    places = Places.of(cells(blank, STRIDE, how="all"), model.anatomy)
    head, brain = boxes(model, places)
    skull = model._encode(model.skull, np.where(blank, 0, volume), ~inside, head)
    return skull, model._encode(model.brain, volume, inside, brain), places


def test_codes_are_the_same(models, head):
    """But for the rare one that lies as near to two code vectors, which rounding decides."""
    (*mine, places), (*theirs, _) = (codes_on(models[device], *head) for device in ("cpu", "cuda"))
    for one, other, box in zip(mine, theirs, boxes(models["cpu"], places)):
        differs = (one != other.cpu()).any(-1)[0][box]
        print(f"{int(differs.sum())} of {differs.numel()} codes differ")
        assert differs.float().mean() < 1e-3


def test_new_heads_are_the_same(models, head):
    mine, theirs = (models[device].remodel(*head, identity_seed=3) for device in ("cpu", "cuda"))
    apart = np.abs(mine - theirs)
    print(f"largest difference {255 * apart.max():.4f} of 255, mean {255 * apart.mean():.6f}")
    assert np.quantile(apart[head[1]], 0.999) < STORED and apart.max() < 8 * STORED


def test_a_gpu_repeats_itself(models, head):
    first, again = (models["cuda"].remodel(*head, identity_seed=3) for _ in range(2))
    assert np.array_equal(first, again)


def test_networks_take_less_than_a_second(models, head):
    """Encoding, filling and decoding of one head."""
    seconds = []
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        skull, brain, places = codes_on(models["cuda"], *head)
        with torch.no_grad():
            vectors = models["cuda"].fill(skull, brain, places)
            box = code_box(cells(head[1], STRIDE) & places.reach, 2)
            models["cuda"]._decode(vectors[(slice(None), *box)])
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    print("seconds: " + " ".join(f"{value:.3f}" for value in seconds))
    assert min(seconds) < 1
