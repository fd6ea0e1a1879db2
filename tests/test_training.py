"""Training pieces: contrasts, crops, the loop that resumes, masks of a step."""

import numpy as np
import pytest
import torch
from torch import nn

from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import BRAIN_LABELS, draw_contrast
from bids_cpmae.training.crops import CropSampler
from bids_cpmae.training.loop import learning_rate, train
from bids_cpmae.training.tokens import deform_face
from bids_cpmae.training.vqvae import reconstruction_loss


def toy_labels():
    labels = np.zeros((40, 40, 40), np.int16)
    labels[4:36, 4:36, 4:36] = 511
    labels[6:34, 6:34, 6:34] = 507
    labels[10:30, 10:30, 10:30] = 515
    labels[12:28, 12:28, 12:28] = 3
    labels[15:25, 15:25, 15:25] = 2
    return labels


def test_contrast_is_t1w_like_and_follows_its_seed():
    labels = toy_labels()
    first, again, other = (draw_contrast(labels, np.random.default_rng(n)) for n in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    inner = {label: np.median(first[labels == label]) for label in (0, 2, 3, 515)}
    assert inner[2] > inner[3] > inner[515] > inner[0]
    assert 24 in BRAIN_LABELS and 507 not in BRAIN_LABELS


@pytest.fixture()
def bank(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a_T1w.npy", rng.integers(0, 255, (256,) * 3).astype(np.uint8))
    return Bank.open(tmp_path)


@pytest.mark.parametrize("part", ["skull", "brain"])
def test_crops_follow_the_step_and_split_the_head(bank, part):
    sampler = CropSampler(bank, part, batch=2)
    (volume, known), again = sampler(3), sampler(3)
    assert volume.shape == known.shape == (2, 1, 64, 64, 64)
    assert torch.equal(volume, again[0]) and torch.equal(known, again[1])
    assert set(known.unique().tolist()) <= {0.0, 1.0}
    assert 0 < known.mean() <= 1


def test_deformation_leaves_all_but_the_mask():
    rng = np.random.default_rng(0)
    volume = rng.random((64, 64, 64)).astype(np.float32)
    distance = np.full(volume.shape, 10.0, np.float32)
    distance[16:48, 16:48, 16:48] = -8
    box = (slice(8, 56),) * 3
    bent = deform_face(volume, distance, box, rng)
    changed = np.abs(bent - volume[box]) > 1e-4
    assert changed.any() and not changed[distance[box] > 0].any()


def test_loss_looks_only_where_known():
    wanted = torch.rand(1, 1, 8, 8, 8)
    known = torch.zeros_like(wanted)
    known[..., :4] = 1
    found = wanted.clone()
    found[..., 4:] += 5
    assert sum(reconstruction_loss(found, wanted, known)) == 0
    found[..., 0] += 1
    assert sum(reconstruction_loss(found, wanted, known)) > 0


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(step, 1000, 1e-3, 100) for step in range(1000)]
    assert rates[0] < rates[50] < rates[99] and max(rates) == pytest.approx(1e-3, rel=0.02)
    assert rates[-1] < 0.06 * max(rates)


def quick(out, steps, stop=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [2.0], [3.0]])

    def losses(step):
        if step == stop:
            raise KeyboardInterrupt
        pick = torch.randint(64, (16,), generator=torch.Generator().manual_seed(step))
        return {"loss": (model(x[pick]) - y[pick]).square().mean()}

    return train(model, losses, out=out, steps=steps, peak_rate=0.05, warmup=5)


def test_training_resumes_where_it_stopped(tmp_path, monkeypatch):
    whole = quick(tmp_path / "whole", 60).weight
    monkeypatch.setattr("bids_cpmae.training.loop.CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "parts", 60, stop=30)
    parts = quick(tmp_path / "parts", 60).weight
    assert torch.allclose(whole, parts)
    steps = [line.split(",")[0] for line in (tmp_path / "parts/losses.csv").read_text().splitlines()]
    assert steps[0] == "step" and steps[-1] == "50"
