"""Training pieces: contrasts, crops, the loop that resumes, masks of a step."""

import csv

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from bids_cpmae.model.identity import bend, joined, portrait_voxels
from bids_cpmae.model.vqvae import VQVAE, ResidualBlock, VQVAEConfig
from bids_cpmae.training.bank import Bank
from bids_cpmae.training.contrasts import BRAIN_LABELS, SKIN_LABEL, SOFT_TISSUE, draw_contrast
from bids_cpmae.training.crops import CropSampler
from bids_cpmae.training.faces import Face, mask, masked_codes, random_bend
from bids_cpmae.training.loop import learning_rate, train
from bids_cpmae.training.shapes import fit_identity, mirrored
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
    labels = np.zeros((256,) * 3, np.int16)
    labels[20:236, 20:236, 20:236], labels[24:232, 24:232, 24:232] = SKIN_LABEL, SOFT_TISSUE
    np.save(tmp_path / "b_dseg.npy", labels)
    return Bank.open(tmp_path)


@pytest.mark.parametrize("part", ["skull", "brain"])
@pytest.mark.parametrize("label_share", [0, 1])
def test_crops_follow_the_step_and_split_the_head(bank, part, label_share):
    sampler = CropSampler(bank, part, batch=2, label_share=label_share)
    (volume, known), again = sampler(3), sampler(3)
    assert volume.shape == known.shape == (2, 1, 64, 64, 64)
    assert torch.equal(volume, again[0]) and torch.equal(known, again[1])
    assert set(known.unique().tolist()) <= {0.0, 1.0}
    assert 0 < known.mean() <= 1 and 0 <= volume.min() < volume.max() <= 1


def test_bending_leaves_all_but_the_mask():
    rng = np.random.default_rng(0)
    volume = rng.random((256, 256, 256), dtype=np.float32)
    share = np.zeros((128, 128, 128), np.float32)
    share[40:60, 40:60, 40:60] = 1
    box = (slice(72, 128),) * 3
    changed = np.abs(bend(volume, random_bend(rng), share, box)[box] - volume[box]) > 1e-3
    stays = np.ones(changed.shape, bool)
    stays[7:49, 7:49, 7:49] = False
    assert changed[12:44, 12:44, 12:44].mean() > 0.9 and not changed[stays].any()


def test_joined_displacements_lead_through_both():
    first, then = np.zeros((2, 3, 32, 32, 32), np.float32)
    first[0] = 8.0  # one node on
    then[1] = np.arange(32, dtype=np.float32)[:, None, None]
    both = joined(first, then)
    assert np.allclose(both[0], 8) and np.allclose(both[1, 3, 5, 7], 4)


def test_identities_are_drawn_of_the_shapes(tmp_path):
    """Heads that differ by one mode of shape: the first component is that mode, as wide as it varies."""
    rng = np.random.default_rng(0)
    bank, shapes = tmp_path, tmp_path / "shapes"
    shapes.mkdir()
    mode = np.zeros((32, 32, 32, 3), np.float32)
    mode[8:24, 20:30, 8:20, 1] = 2.0
    mode = (mode + mode[::-1]) / 2
    for number, amount in enumerate((-1.5, -0.5, 0.5, 1.5)):
        np.save(bank / f"{number}_T1w.npy", np.zeros(1, np.uint8))
        np.save(shapes / f"{number}_T1w.npy", amount * mode + 1e-3 * rng.standard_normal(mode.shape))
    portrait = np.zeros((256,) * 3, np.uint8)
    portrait[120:136, 190:200, 90:110] = 128
    np.save(bank / "portrait.npy", portrait)
    identity = fit_identity(Bank.open(bank), components=2)
    assert np.array_equal(np.rint(255 * identity.portrait), np.where(portrait_voxels(), portrait, 0))
    where = identity.where.numpy()
    spread = identity.components[0].norm() / np.linalg.norm(mode[where])
    assert spread.item() == pytest.approx(np.sqrt(1.25), rel=0.02)
    assert identity.components[1].norm() < 0.05 * identity.components[0].norm()
    assert np.allclose(mirrored(mirrored(mode.transpose(3, 0, 1, 2))), mode.transpose(3, 0, 1, 2))


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


def quick(out, steps, stop=None, workers=0):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [2.0], [3.0]])

    def batches(step):
        return torch.randint(64, (16,), generator=torch.Generator().manual_seed(step))

    def losses(step, pick):
        if step == stop:
            raise KeyboardInterrupt
        return {"loss": (model(x[pick]) - y[pick]).square().mean()}

    return train(model, losses, batches=batches, out=out, steps=steps, peak_rate=0.05, warmup=5, workers=workers)


def test_training_resumes_where_it_stopped(tmp_path, monkeypatch):
    whole = quick(tmp_path / "whole", 60).weight
    monkeypatch.setattr("bids_cpmae.training.loop.CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "parts", 60, stop=30)
    parts = quick(tmp_path / "parts", 60, workers=2).weight
    assert torch.allclose(whole, parts)
    steps = [line.split(",")[0] for line in (tmp_path / "parts/losses.csv").read_text().splitlines()]
    assert steps[0] == "step" and steps[-1] == "50"


def test_a_batch_gone_wrong_leaves_the_weights_alone(tmp_path):
    """A loss that is no number, early and late: the steps are passed over and training goes on."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)

    def losses(step, x):
        bad = torch.tensor(float("nan")) if step in (2, 40) else 1.0
        return {"loss": (model(x) - 3 * x).square().mean() * bad}

    train(model, losses, batches=lambda step: torch.ones(8, 1), out=tmp_path, steps=200, peak_rate=0.1, warmup=5)
    assert model(torch.ones(1, 1)).item() == pytest.approx(3, abs=0.05)


@pytest.fixture(scope="module")
def face_bank(tmp_path_factory):
    """One head, the average one, which has the shape of the portrait."""
    from bids_cpmae.imaging.headspace import head_affine, head_shape
    from bids_cpmae.imaging.resample import resample
    from bids_cpmae.imaging.template import load_template

    folder, grid = tmp_path_factory.mktemp("bank"), load_template().grid
    head = resample(grid.data, grid.affine, head_affine(), head_shape())
    (folder / "shapes").mkdir()
    np.save(folder / "a_T1w.npy", np.rint(np.clip(127 * head, 0, 255)).astype(np.uint8))
    np.save(folder / "shapes" / "a_T1w.npy", np.zeros((32, 32, 32, 3), np.float16))
    return Bank.open(folder)


def test_a_drawn_face_is_the_head_and_under_the_mask_a_sketch(face_bank):
    """What stands under the mask is in ``true`` alone: ``mixed`` does not depend on it."""
    from bids_cpmae.imaging.template import load_portrait

    face = Face(face_bank.scans[0], 1, 0)
    volume = np.load(face.path)
    drawn = face.draw(load_portrait())
    box = tuple(slice(c, c + n) for c, n in zip(drawn["corner"], drawn["true"].shape))
    hidden = mask(int(drawn["mask"]))[box]
    assert np.array_equal(drawn["true"], volume[box])
    assert np.array_equal(drawn["mixed"][~hidden], volume[box][~hidden])
    assert (drawn["mixed"][hidden] != volume[box][hidden]).mean() > 0.2 and drawn["mixed"][hidden].max() > 60
    np.save(face.path, np.where(mask(int(drawn["mask"])), 255 - volume, volume))
    again = face.draw(load_portrait())
    np.save(face.path, volume)
    assert np.array_equal(again["mixed"], drawn["mixed"]) and not np.array_equal(again["true"], drawn["true"])


def test_variants_of_a_head_are_seen_by_other_scanners(face_bank):
    """Two of one head differ in light and noise and in nothing else; the same variant is always the same."""
    own, one, other = (Face(face_bank.scans[0], 1, variant).head()[0] for variant in (0, 2, 4))
    assert np.array_equal(own, np.load(face_bank.scans[0]).astype(np.float32) / 255)
    assert np.array_equal(one, Face(face_bank.scans[0], 1, 2).head()[0]) and not np.array_equal(one, other)
    tissue = own > 0.3
    for seen in (one, other):
        assert 0 <= seen.min() and seen.max() <= 1 and seen[own == 0].mean() < 0.05
        ratio = np.log(gaussian_filter(seen, 3)[tissue] / gaussian_filter(own, 3)[tissue])
        assert 0.03 < ratio.std() < 0.8  # light
        shapes = np.corrcoef(*((volume - gaussian_filter(volume, 8))[tissue] for volume in (seen, own)))[0, 1]
        assert shapes > 0.75


SMALL = VQVAEConfig((4, 4, 4), (0, 1, 1), (0, 1, 1), codes=64, code_dim=4, levels=2)
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def drawn(face_bank, tmp_path_factory):
    """The head and its mirror image with their own faces, and the head with a deformed one."""
    from bids_cpmae.imaging.template import load_portrait
    from bids_cpmae.training import faces

    folder = faces.build(face_bank, tmp_path_factory.mktemp("faces"), load_portrait(), variants=0, workers=1)
    deformed = Face(face_bank.scans[0], 1, 1)
    np.savez(folder / f"{deformed.name}.npz", **deformed.draw(load_portrait()))
    return folder


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
def test_all_networks_are_trained_on(device, face_bank, drawn, tmp_path, monkeypatch):
    """A few steps of each, batches drawn in a process beside it: weights stay numbers, the decoder learns further."""
    from bids_cpmae.training import mae, refine, tokens, vqvae

    monkeypatch.setattr(vqvae, "START_BATCHES", 2)
    parts = {}
    for part in ("skull", "brain"):
        monkeypatch.setattr(vqvae, f"{part}_preset", lambda: SMALL)
        vqvae.build_and_train(face_bank.heads[0].parent, tmp_path / part, part=part, steps=6, batch=1, rate=1e-3,
                              device=device)  # fmt: skip
        parts[part] = mae.load_vqvae(tmp_path / part / "weights.pt")
    skull, brain = parts.values()
    codes = tokens.build(face_bank, drawn, tmp_path / "codes", tokens.Encoders.load(skull, brain, device), variants=1)
    model = mae.build_and_train(codes, tmp_path / "mae", skull, brain, steps=3, batch=2, rate=1e-3, device=device,
                                held_out=codes)  # fmt: skip
    with open(tmp_path / "mae" / "held-out.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "3" and 0 < float(row["loss"]) < 100 and float(row["of_sketch"]) > 0
    before = skull.decoder.layers[-1].weight.detach().clone()
    refined = refine.refine(drawn, codes, tmp_path / "decoder", model.eval(), skull, brain, steps=3, batch=1,
                            device=device, workers=1)  # fmt: skip
    assert not torch.equal(refined.decoder.layers[-1].weight, before)
    for network in (refined, brain, model):
        assert all(value.isfinite().all() for value in network.state_dict().values())


def test_faces_are_encoded_and_batches_hide_what_is_to_be_learned(face_bank, drawn, tmp_path):
    """Small networks: codes are those of the whole head with the drawn face in it, and there is always a target."""
    from bids_cpmae.model.mae import MAEConfig, MaskedAutoencoder
    from bids_cpmae.training import tokens
    from bids_cpmae.training.mae import TokenBank, forward_loss

    torch.manual_seed(0)
    skull, brain = VQVAE(SMALL).eval(), VQVAE(SMALL).eval()
    for block in skull.encoder.modules():  # silent at the start of training
        if isinstance(block, ResidualBlock):
            nn.init.normal_(block.second.weight, std=0.3)
    crop = torch.from_numpy(np.load(face_bank.scans[0])[96:160, 160:224, 64:128] / 255)[None, None].float()
    with torch.no_grad():
        skull.codebook.initialise(skull.features(crop, torch.ones_like(crop)).movedim(1, -1).reshape(-1, 4))
    encoders = tokens.Encoders.load(skull, brain)
    codes = tokens.build(face_bank, drawn, tmp_path / "codes", encoders, variants=1)
    names = [f"a_T1w_{face}.npz" for face in ("+1_0", "+1_1", "-1_0")]
    assert sorted(path.name for path in codes.iterdir()) == names
    with np.load(drawn / names[1]) as face, np.load(codes / names[1]) as encoded:
        volume, _ = Face(face_bank.scans[0], 1, 1).head()
        volume[tuple(slice(c, c + n) for c, n in zip(face["corner"], face["mixed"].shape))] = face["mixed"] / 255
        assert np.array_equal(encoded["mixed"], encoders.codes(skull, volume, ~encoders.inside))
        assert (encoded["true"] != encoded["mixed"]).any(-1)[masked_codes(int(face["mask"]))[1]].any()
    with np.load(codes / names[0]) as encoded:
        volume = np.load(face_bank.scans[0]).astype(np.float32) / 255
        assert np.array_equal(encoded["true"], encoders.codes(skull, volume, ~encoders.inside))
    bank = TokenBank(codes, batch=2)
    model = MaskedAutoencoder(MAEConfig(32, 2, 1, 1, SMALL.code_dim, SMALL.code_dim))
    for step in range(30):
        batch = bank(step)
        hidden = ~(batch["known"][None] | batch["shown"])
        assert hidden.any((1, 2)).all()
    assert all(torch.isfinite(loss) for loss in forward_loss(model, skull.codebook, brain.codebook, batch).values())


def test_ears_of_a_portrait_stand_out_and_nothing_else_changes():
    """A block of a head with flat ears: they stand further out and further back, and stay two of a kind."""
    from bids_cpmae.imaging.template import EARS_BIT, load_template
    from bids_cpmae.training.mending import EAR_OUT, EAR_REACH, EAR_RIM, with_standing_ears

    ears = load_template().fine(EARS_BIT)
    x, y, z = np.indices(ears.shape, sparse=True)
    centre = np.argwhere(ears)[:, 1:].mean(0)
    head = (np.abs(x - 127.5) < 80) & (np.abs(y - 128) < 90) & (np.abs(z - 128) < 100)
    mould = ((y - centre[0]) ** 2 + (z - centre[1]) ** 2 < 12**2) & (np.abs(x - 127.5) < 90)
    portrait = np.where(head | mould, 0.5, 0).astype(np.float32)
    found = with_standing_ears(portrait)
    assert np.array_equal(found, found[::-1])
    before, after = (np.abs(np.argwhere(part > 0.25)[:, 0] - 127.5).max() for part in (portrait, found))
    assert after - 80 == pytest.approx(EAR_OUT * (before - 80), abs=1)
    # the foremost and the hindmost of what stands out further than the mould did
    beyond = np.argwhere(found[128 + 90 :] > 0.25)[:, 1] - centre[0]
    assert beyond.min() < -14 and beyond.max() < 11
    far = ~ears.any(0)
    rows, columns = (slice(hit.min() - EAR_REACH - EAR_RIM, hit.max() + EAR_REACH + EAR_RIM + 1)
                     for hit in np.nonzero(~far))  # fmt: skip
    far[rows, columns] = False
    assert np.array_equal(found[:, far], portrait[:, far])
    assert np.array_equal(found[128 - 78 : 128 + 78], portrait[128 - 78 : 128 + 78])


def test_lips_of_a_portrait_touch_and_its_teeth_stay():
    """A slit of 3 mm between the lips is closed to four fifths; a mouth of 14 mm behind them stays open."""
    from bids_cpmae.training.mending import LIPS, with_closed_lips

    portrait = np.full((256,) * 3, 0.5, np.float32)
    x, y, z = LIPS
    slit, mouth = np.s_[x, y.start + 6 : y.stop, 62:65], np.s_[x, y.start : y.start + 6, 56:70]
    portrait[slit] = portrait[mouth] = 0.1
    found = with_closed_lips(portrait)
    np.testing.assert_allclose(found[slit], 0.42, atol=1e-6)
    np.testing.assert_array_equal(found[mouth], portrait[mouth])
    portrait[LIPS], found[LIPS] = 0, 0
    np.testing.assert_array_equal(found, portrait)
