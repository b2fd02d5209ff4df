import pytest
import torch

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.augment import augment, draw

STILL = EmbedConfig(
    flip_prob=0,
    depth_flip=0,
    rotate_deg=0,
    scale=0,
    shift=0,
    hu_scale=0,
    hu_shift=0,
    hu_noise=0,
    hu_kernel=0,
    erase=0,
)


def _hu(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 50


def test_parameters_of_zero_change_nothing() -> None:
    hu = _hu()
    torch.testing.assert_close(augment(hu, draw(STILL, 3, torch.Generator())), hu, atol=1e-3, rtol=0)


def test_flips_are_exact_mirrors() -> None:
    cfg = STILL.model_copy(update={"flip_prob": 1.0, "depth_flip": 1.0})
    hu = _hu()
    torch.testing.assert_close(
        augment(hu, draw(cfg, 3, torch.Generator())), hu.flip(-1).flip(1), atol=1e-3, rtol=0
    )


def test_parameters_are_drawn_per_sample_and_repeat_with_the_seed() -> None:
    cfg = EmbedConfig(hu_noise=3)
    first, again = (augment(_hu(), draw(cfg, 3, torch.Generator().manual_seed(7))) for _ in range(2))
    assert torch.equal(first, again)
    gains = draw(cfg, 100, torch.Generator().manual_seed(7)).gain
    assert len(gains.unique()) > 90


def test_each_sample_is_augmented_by_its_own_parameters() -> None:
    cfg = EmbedConfig()
    draws = draw(cfg, 3, torch.Generator().manual_seed(3))
    batch = augment(_hu(), draws)
    other = _hu().clone()
    other[1] += 20
    assert torch.equal(augment(other, draws)[0], batch[0])
    assert not torch.equal(augment(other, draws)[1], batch[1])


def test_pixels_shifted_in_from_outside_are_air() -> None:
    cfg = STILL.model_copy(update={"shift": 0.4})
    generator = torch.Generator().manual_seed(5)
    shifted = augment(torch.full((8, 1, 16, 16), 40.0), draw(cfg, 8, generator))
    assert shifted.min() < -900
    assert shifted.max() <= 40.001


def test_the_noise_has_the_drawn_strength_and_differs_between_slices() -> None:
    cfg = STILL.model_copy(update={"hu_noise": 20.0})
    draws = draw(cfg, 40, torch.Generator().manual_seed(1))
    assert draws.noise is not None
    assert 12 < float(draws.noise.max()) <= 20
    assert float(draws.noise.median()) < 8  # most samples stay close to the original
    noise = augment(torch.zeros(40, 3, 64, 64), draws)
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), draws.noise, rtol=0.05, atol=0.02)
    assert torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1].abs() < 0.01


@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_kernel_blurs_and_sharpens_and_keeps_flat_regions(size: int) -> None:
    cfg = STILL.model_copy(update={"hu_kernel": 2.0})
    draws = draw(cfg, 50, torch.Generator().manual_seed(2))
    assert draws.kernel is not None
    assert draws.kernel.min() >= -1
    assert 1 < float(draws.kernel.max()) <= 2
    flat = torch.full((50, 3, size, size), 40.0)
    torch.testing.assert_close(augment(flat, draws), flat, atol=1e-3, rtol=0)
    edge = torch.zeros(50, 3, 16, 16)
    edge[..., 8:] = 10
    steepest = augment(edge, draws).diff(dim=-1).amax(dim=(1, 2, 3))
    torch.testing.assert_close(steepest, 10 * (1 + draws.kernel / 2), atol=0.01, rtol=0)


def test_noise_passes_through_the_kernel() -> None:
    cfg = STILL.model_copy(update={"hu_noise": 20.0, "hu_kernel": 1.0})
    draws = draw(cfg, 200, torch.Generator().manual_seed(4))
    assert draws.noise is not None
    assert draws.kernel is not None
    noise = augment(torch.zeros(200, 1, 32, 32), draws)
    relative = noise.std(dim=(1, 2, 3)) / draws.noise
    assert relative[draws.kernel < -0.5].max() < 0.8
    assert relative[draws.kernel > 0.5].min() > 1.2


def test_a_part_of_a_batch_keeps_the_parameters_of_its_samples() -> None:
    cfg = EmbedConfig(hu_noise=0)
    draws, hu = draw(cfg, 6, torch.Generator().manual_seed(6)), _hu(6)
    assert draws.noise is None
    part = draws.part(slice(2, 5))
    assert part.noise is None
    torch.testing.assert_close(augment(hu[2:5], part), augment(hu, draws)[2:5])


def test_augmentation_reads_no_value_back_from_the_device() -> None:
    """Values on the device ``meta`` cannot be read: any wait for a GPU would raise an error here."""
    draws = draw(EmbedConfig(), 4, torch.Generator())
    on_meta = draws.to(torch.device("meta"))
    noiseless = type(on_meta)(**{**on_meta.__dict__, "noise": None})  # torch has no generator on meta
    assert augment(torch.empty(4, 3, 16, 16, device="meta"), noiseless).shape == (4, 3, 16, 16)
