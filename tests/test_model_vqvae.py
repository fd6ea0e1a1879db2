"""The VQ-VAE: shapes, locality, and the codebook."""

import pytest
import torch

from bids_cpmae.model.vqvae import VQVAE, VQVAEConfig, pixel_shuffle3d, pixel_unshuffle3d

TINY = VQVAEConfig(channels=(4, 8, 8), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1), codes=32, code_dim=4,
                   levels=2)  # fmt: skip


@pytest.fixture()
def tiny():
    torch.manual_seed(0)
    model = VQVAE(TINY)
    for block in model.modules():  # residual branches start silent; wake them so that locality is really tested
        if isinstance(block, torch.nn.Conv3d) and not block.weight.any():
            torch.nn.init.normal_(block.weight, std=0.1)
    return model.eval()


def test_pixel_shuffle_inverts_unshuffle():
    x = torch.rand(2, 3, 4, 6, 8)
    assert torch.equal(pixel_shuffle3d(pixel_unshuffle3d(x)), x)


def test_codes_and_volume_have_the_documented_shapes(tiny):
    codes = tiny.encode(torch.rand(1, 1, 32, 16, 24), torch.ones(1, 1, 32, 16, 24))
    assert codes.shape == (1, 4, 2, 3, 2)
    assert codes.dtype == torch.int64
    assert tiny.decode(codes).shape == (1, 1, 32, 16, 24)


def test_blank_voxels_are_not_read(tiny):
    volume, known = torch.rand(1, 1, 32, 32, 32), torch.ones(1, 1, 32, 32, 32)
    known[..., 16:] = 0
    other = torch.where(known > 0, volume, 100 * torch.rand_like(volume))
    assert torch.equal(tiny.features(volume, known), tiny.features(other, known))


def test_a_far_change_moves_no_code(tiny):
    """Nothing in the encoder takes statistics over space, so nothing can leak from afar."""
    volume, known = torch.rand(1, 1, 96, 16, 16), torch.ones(1, 1, 96, 16, 16)
    other = volume.clone()
    other[:, :, 80:] = 1 - other[:, :, 80:]
    first, second = tiny.features(volume, known), tiny.features(other, known)
    assert torch.equal(first[:, :, :5], second[:, :, :5])
    assert not torch.equal(first[:, :, 10:], second[:, :, 10:])


def test_codebook_finds_its_own_vectors(tiny):
    indices = torch.arange(32)
    for book in tiny.codebook.levels:
        assert torch.equal(book.nearest(book.lookup(indices)), indices)


def test_codebooks_follow_what_is_assigned_to_them():
    torch.manual_seed(1)
    book = VQVAE(TINY).codebook
    target = torch.full((64, 4), 3.0) + 0.01 * torch.randn(64, 4)
    for _ in range(300):
        book.update(target, book.nearest(target))
    assert (book.lookup(book.nearest(target)) - target).abs().max() < 0.1


def test_a_second_codebook_stands_for_what_the_first_leaves():
    torch.manual_seed(2)
    book, target = VQVAE(TINY).codebook, torch.randn(4096, 4)
    book.initialise(target)
    for _ in range(60):
        book.update(target, book.nearest(target))
    indices = book.nearest(target)
    first = (book.levels[0].lookup(indices[:, 0]) - target).square().mean()
    both = (book.lookup(indices) - target).square().mean()
    assert both < 0.4 * first


def test_training_step_lowers_the_error():
    torch.manual_seed(0)
    model = VQVAE(TINY).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    volume = torch.zeros(2, 1, 32, 32, 32)
    volume[:, :, 4:28, 4:28, 4:28] = 0.8
    known = torch.ones_like(volume)
    errors = []
    for step in range(120):
        if step == 40:
            z = model.features(volume, known).detach().movedim(1, -1).reshape(-1, TINY.code_dim)
            model.codebook.initialise(z)
        found = model(volume, known)[0] if step >= 40 else model.decoder(model.features(volume, known))
        loss = (found - volume).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(loss.item())
    # a constant reaches the volume's variance, 0.16; the picture itself has to come back
    assert errors[-1] < 0.05
