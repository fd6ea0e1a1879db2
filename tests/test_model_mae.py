"""The masked autoencoder and what joins it to the VQ-VAEs."""

import numpy as np
import pytest
import torch

from bids_cpmae.errors import WeightsError
from bids_cpmae.model.cpmae import CPMAE, SamplingConfig, draw
from bids_cpmae.model.mae import MAEConfig, MaskedAutoencoder, group, ungroup
from bids_cpmae.model.regions import Anatomy, Places, cells, group_cells
from bids_cpmae.model.vqvae import VQVAE, VQVAEConfig
from bids_cpmae.model.weights import load_cpmae, save_weights

SIDE = 32  # codes along one side


def ball(centre, radius, size=256):
    grid = np.indices((size,) * 3, dtype=np.float32)
    return sum((g - c) ** 2 for g, c in zip(grid, centre)) < radius**2


@pytest.fixture(scope="module")
def anatomy():
    return Anatomy(brain=ball((128, 110, 160), 40), head=ball((128, 128, 140), 70))


@pytest.fixture(scope="module")
def model(anatomy):
    torch.manual_seed(0)
    vqvae = VQVAEConfig(channels=(4, 4, 8), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), codes=16, code_dim=4)
    mae = MAEConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, latent=4, code_dim=4, codes=16)
    filler = MaskedAutoencoder(mae)
    # untrained it predicts the average head whoever is asked for; wake it
    torch.nn.init.normal_(filler.head.weight, std=0.5)
    torch.nn.init.normal_(filler.head.bias, std=0.5)
    return CPMAE(VQVAE(vqvae), VQVAE(vqvae), filler, anatomy).eval()


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    blank = np.zeros((256,) * 3, bool)
    blank[90:170, 180:, 70:140] = True
    return rng.random((256,) * 3, dtype=np.float32), blank


def test_ungroup_inverts_group():
    codes = torch.arange(SIDE**3).reshape(1, SIDE, SIDE, SIDE)
    assert torch.equal(ungroup(group(codes), SIDE // 2), codes)


def test_group_cells_agrees_with_group():
    codes = np.arange(8**3).reshape(8, 8, 8)
    assert np.array_equal(group_cells(codes), group(torch.from_numpy(codes)[None])[0].numpy())


def test_places_keep_target_and_context_apart(anatomy, scan):
    masked = cells(scan[1] & ~anatomy.brain, 8)
    places = Places.of(masked, anatomy)
    assert len(places.target) and len(places.skull) and len(places.brain)
    assert not set(places.target) & set(places.skull)
    assert (~places.target_known).any(1).all()


def test_what_lies_under_the_mask_does_not_matter(model, scan):
    volume, blank = scan
    first = model.remodel(volume, blank, identity_seed=3)
    for garbage in (0.0, 1.0, np.nan, 1e9):
        other = np.where(blank, np.float32(garbage), volume)
        again = model.remodel(other, blank, identity_seed=3)
        assert np.array_equal(first, again)


def test_identity_seed_decides_the_face(model, scan):
    volume, blank = scan
    first, again, other = (model.remodel(volume, blank, identity_seed=n) for n in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[blank], other[blank])


def test_the_brain_is_put_back(model, scan, anatomy):
    volume, blank = scan
    for mode in ("face", "head"):
        new = model.remodel(volume, blank, mode=mode)
        assert new.shape == (256, 256, 256)
        assert np.array_equal(new[anatomy.brain], volume[anatomy.brain])


@pytest.mark.parametrize("sampling", [SamplingConfig(steps=1), SamplingConfig(steps=3, temperature=0.5, snap=0.5)])
def test_sampling_options_fill_every_masked_code(model, scan, sampling):
    volume, blank = scan
    new = model.remodel(volume, blank, sampling=sampling)
    assert np.isfinite(new).all()
    assert new[blank].std() > 0


def test_a_cold_draw_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    drawn, certainty = draw(logits, 0.0, torch.Generator())
    assert drawn.item() == 1
    assert certainty.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())


def test_a_warm_draw_follows_the_odds():
    logits = torch.tensor([0.0, 1.0]).expand(20000, 2)
    drawn, _ = draw(logits, 1.0, torch.Generator().manual_seed(0))
    assert drawn.float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.02)


def test_weights_come_back_from_their_file(model, scan, tmp_path, monkeypatch):
    path = save_weights(tmp_path / "w.safetensors", model.skull, model.brain, model.mae)
    monkeypatch.setattr("bids_cpmae.model.weights.shipped_anatomy", lambda: model.anatomy)
    load_cpmae.cache_clear()
    loaded = load_cpmae(path)
    load_cpmae.cache_clear()
    codes = torch.randint(0, 16, (1, 4, 4, 4))
    assert torch.allclose(loaded.skull.decode(codes), model.skull.decode(codes), atol=2e-2)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_damaged_weights_are_refused_by_name(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="w.safetensors"):
        load_cpmae(path)
