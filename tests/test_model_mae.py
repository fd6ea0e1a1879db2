"""The masked autoencoder and what joins it to the VQ-VAEs."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from bids_cpmae.errors import WeightsError
from bids_cpmae.imaging.facemask import signed_distance
from bids_cpmae.imaging.headspace import grid_points, head_affine, head_shape
from bids_cpmae.imaging.light import lit
from bids_cpmae.imaging.template import BRAIN_BIT, HEAD_BIT, load_portrait, load_template
from bids_cpmae.model.cpmae import CPMAE, blended, forehead
from bids_cpmae.model.identity import (
    SIZE_BOUNDS,
    Identity,
    Pose,
    bend,
    joined,
    portrait_voxels,
    share_of,
    shares,
)
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
    vqvae = VQVAEConfig(
        channels=(4, 4, 8), encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0), codes=16, code_dim=4, levels=2
    )
    mae = MAEConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, code_dim=4, brain_dim=4)
    filler, identity = MaskedAutoencoder(mae), Identity(3)
    # untrained it predicts the average head whoever is asked for; wake it
    torch.nn.init.normal_(filler.head.weight, std=0.5)
    torch.nn.init.normal_(filler.head.bias, std=0.5)
    identity.components.normal_(std=5.0)
    identity.portrait = load_portrait()
    model = CPMAE(VQVAE(vqvae), VQVAE(vqvae), filler, identity, anatomy).eval()
    for part in (model.skull, model.brain):  # codes where the features are, so that heads differ in theirs
        noise = torch.rand(1, 1, 32, 32, 32)
        part.codebook.initialise(part.features(noise, torch.ones_like(noise)).detach().movedim(1, -1).reshape(-1, 4))
    return model


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(0)
    blank = np.zeros((256,) * 3, bool)
    blank[90:170, 180:, 70:140] = True
    return rng.random((256,) * 3, dtype=np.float32), blank


def test_ungroup_inverts_group():
    codes = torch.arange(2 * SIDE**3).reshape(1, SIDE, SIDE, SIDE, 2)
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


def test_a_new_forehead_lies_further_out_by_what_its_seed_says(model):
    drawn = np.array([model.draw_forehead(seed) for seed in range(50)])
    assert drawn.min() > 0.8 and drawn.max() < 2.4 and (drawn.std(0) > 0.3).all()
    assert np.abs(np.corrcoef(drawn.T)[0, 1]) < 0.4
    assert model.draw_forehead(1) == model.draw_forehead(1)
    more = forehead(1.5, 2.5)
    brow, temple, lips = (128, 186, 160), (178, 166, 160), (128, 194, 67)
    assert more[brow] == pytest.approx(1.5) and more[temple] == pytest.approx(2.5) and more[lips] == 0


def test_faces_differ_in_size_and_pose_within_bounds(model):
    drawn = np.array([
        [pose.size, pose.pitch, pose.forwards, pose.upwards] for pose in (model.draw_pose(seed) for seed in range(60))
    ])  # fmt: skip
    assert (drawn.std(0) > (0.02, 1.5, 1.2, 1.2)).all()
    assert (np.abs(drawn - (1.02, 0, 0, 0)) <= (0.0601, 5.01, 4.01, 4.01)).all()
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.4
    assert model.draw_pose(1) == model.draw_pose(1)


def test_a_larger_head_changes_the_face_and_in_head_mode_nothing(model, scan):
    volume, blank = scan
    plain, small = (model.remodel(volume, blank, head_size=size) for size in (1.0, 0.97))
    assert not np.array_equal(plain[blank], small[blank])
    heads = [model.remodel(volume, blank, mode="head", head_size=size) for size in (1.0, 0.97)]
    assert np.array_equal(*heads)


def tip_of_nose(pose, head_size=1.0):
    """Voxels forwards and upwards at which the portrait's nose ends in that pose."""
    drawn = bend(load_portrait(), pose.displacement(head_size), shares("face"))[128, :, 40:110] > 0.15
    front = np.array([np.flatnonzero(line).max(initial=0) for line in drawn.T])
    return front.max(), 40 + np.flatnonzero(front == front.max()).mean()


def test_a_pose_moves_the_nose():
    forwards, upwards = tip_of_nose(Pose())
    larger = tip_of_nose(Pose(1.05))
    assert 2 <= larger[0] - forwards <= 6 and larger[1] < upwards - 1
    # as large on a small head, and no larger than its head on a large one
    assert tip_of_nose(Pose(), head_size=1 / 1.05) == larger
    assert tip_of_nose(Pose(1.05), head_size=1.05) == (forwards, upwards)
    assert tip_of_nose(Pose(1.2)) == tip_of_nose(Pose(SIZE_BOUNDS[1]))
    assert tip_of_nose(Pose(forwards=3))[0] - forwards == pytest.approx(3, abs=1)
    assert tip_of_nose(Pose(upwards=3))[1] - upwards == pytest.approx(3, abs=1.5)
    assert tip_of_nose(Pose(pitch=3))[1] > upwards + 2


def test_a_pose_ends_at_the_border_of_what_is_replaced_and_at_the_brow():
    moved = np.linalg.norm(Pose(1.07, 5.0, 3.0, 3.0).displacement(), axis=0)
    away = signed_distance(load_template().replaced_with_air(), 2)[2::4, 2::4, 2::4]
    height = grid_points(head_affine(8), head_shape(8))[..., 2]
    assert moved.max() > 6 and moved[(away > -8) & (height < 0)].max() < 3
    assert not moved[away > 8].any() and not moved[height > 0].any()


def test_what_is_drawn_of_the_shipped_shapes_and_a_pose_is_hardly_folded():
    shipped, head = load_cpmae(None, "cpu"), load_template().mask(HEAD_BIT)
    for seed in range(4):
        shift = shipped.identity.displacement(torch.from_numpy(shipped.draw_scores(seed))).numpy()
        places = np.moveaxis(grid_points(head_affine(8), head_shape(8)), -1, 0)
        for size in (0.96, 1.0, 1.05):
            led = places + joined(shipped.draw_pose(seed).displacement(size), shift)
            steps = np.stack([np.stack(np.gradient(part, 8.0)) for part in led])
            turned = np.linalg.det(np.moveaxis(steps, (0, 1), (-2, -1))) <= 0
            assert turned[cells(head, 4)].mean() < 1e-3


def test_a_scale_of_zero_gives_everybody_the_average_face(model, scan):
    volume, blank = scan
    first, other = (model.remodel(volume, blank, identity_seed=n, identity_scale=0.0) for n in (1, 2))
    assert np.array_equal(first, other)


def test_a_mask_that_covers_no_code_whole_is_filled_by_the_sketch(model, scan):
    volume, blank = scan
    where = np.argwhere(blank & model.anatomy.head & ~model.anatomy.brain).mean(0).astype(int)
    small = np.zeros_like(blank)
    small[tuple(slice(middle - 2, middle + 3) for middle in where)] = True
    assert not cells(small, 8, how="all").any()
    head = model.remodel(volume, small)
    assert np.array_equal(head, model.remodel(np.where(small & ~model.anatomy.brain, 9, volume), small))
    assert np.isfinite(head).all()


def test_a_sketch_without_displacement_is_the_portrait():
    still = np.zeros((3, 32, 32, 32), np.float32)
    assert np.allclose(bend(load_portrait(), still, shares("face")), load_portrait(), atol=1e-3)


def test_a_box_of_a_sketch_is_the_same_as_in_the_whole():
    shift = np.full((3, 32, 32, 32), 3.0, np.float32)
    box = (slice(96, 160), slice(160, 224), slice(64, 128))
    whole, part = bend(load_portrait(), shift, shares("face")), bend(load_portrait(), shift, shares("face"), box)
    assert whole[box].max() > 0.3 and np.allclose(whole[box], part[box], atol=1e-3)
    assert part.sum() == pytest.approx(part[box].sum())


def test_the_shipped_portrait_is_a_head_with_a_nose_and_no_brain():
    portrait, template = load_portrait(), load_template()
    assert portrait[template.fine(BRAIN_BIT)].max() == 0
    front = [np.argwhere(portrait[128, :, z] > 0.15).max(initial=0) for z in range(60, 160)]
    assert max(front) - np.median(front) > 10  # mm that the nose sticks out


def test_a_sketch_bends_inside_the_mask_only():
    shift = np.zeros((3, 32, 32, 32), np.float32)
    shift[1] = 4.0  # what is shown lies 4 mm further back
    share = shares("face")
    still, moved = (bend(load_portrait(), field, share) for field in (0 * shift, shift))
    changed = np.abs(moved - still)[::2, ::2, ::2] > 0.01
    fixed = binary_erosion(share == 0, iterations=2)
    assert changed[share == 1].mean() > 0.05 and not changed[fixed].any()
    nose = np.argwhere(still[128] > 0.1)[:, 0].max()
    assert nose - np.argwhere(moved[128] > 0.1)[:, 0].max() == pytest.approx(4, abs=1)


def test_the_share_grows_from_the_border_inwards():
    assert share_of(np.array([3.0, 0.0, -4.0, -8.0, -99.0]), 8.0).tolist() == [0, 0, 0.5, 1, 1]


def test_weights_come_back_from_their_file(model, scan, tmp_path, monkeypatch):
    path = save_weights(tmp_path / "w.safetensors", model.skull, model.brain, model.mae, model.identity)
    monkeypatch.setattr("bids_cpmae.model.weights.shipped_anatomy", lambda: model.anatomy)
    load_cpmae.cache_clear()
    loaded = load_cpmae(path)
    load_cpmae.cache_clear()
    codes = torch.randint(0, 16, (1, 4, 4, 4, 2))
    assert torch.allclose(loaded.skull.decode(codes), model.skull.decode(codes), atol=2e-2)
    assert torch.allclose(loaded.identity.components, model.identity.components, atol=2e-2)
    assert np.allclose(loaded.identity.portrait, model.identity.portrait, atol=1e-6)


def test_weights_with_a_portrait_of_an_earlier_version_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr("bids_cpmae.model.identity.EARS_MARGIN_MM", 4.0)
    portrait_voxels.cache_clear()
    path = save_weights(tmp_path / "w.safetensors", model.skull, model.brain, model.mae, model.identity)
    monkeypatch.undo()
    portrait_voxels.cache_clear()
    with pytest.raises(WeightsError, match="w.safetensors.*earlier version.*train mae"):
        load_cpmae(path)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_damaged_weights_are_refused_by_name(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="w.safetensors"):
        load_cpmae(path)


def test_a_sketch_takes_on_the_light_of_the_scan_around_it():
    """A coil that fades towards the chin: the sketch fades on under the mask, by what is seen outside it alone."""
    z, y = np.mgrid[:96, :96][::-1]
    light = np.exp(-(((95 - z) / 90.0) ** 2)).astype(np.float32)[None].repeat(96, 0)
    drawn = np.full((96, 96, 96), 0.5, np.float32)
    blank = np.broadcast_to(y > 48, drawn.shape)
    brain = np.zeros_like(blank)
    scan = np.where(blank, np.nan, drawn * light).astype(np.float32)
    found = lit(drawn, scan, blank, brain)
    inside = blank & (y < 80) & (light > 0.5)
    np.testing.assert_allclose(found[inside], (drawn * light)[inside], rtol=0.1)
    # never so dark that no face is left, and as it was where nothing is known
    assert lit(drawn, 0.35 * scan, blank, brain).min() >= 0.45 * 0.5 * 0.999
    np.testing.assert_array_equal(lit(drawn, scan, np.ones_like(blank), brain), drawn)


def test_what_was_decoded_leads_at_the_border_and_the_sketch_inside():
    blank = np.zeros((16, 16, 128), bool)
    blank[..., 16:] = True
    found = blended(np.full(blank.shape, 0.8, np.float32), np.full(blank.shape, 0.2, np.float32), blank)[8, 8]
    np.testing.assert_allclose(found[:16], 0.8, atol=1e-6)
    assert found[17] > 0.65 and found[90] < 0.21
    assert np.all(np.diff(found[:100]) <= 1e-6)
