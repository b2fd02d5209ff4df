import torch

from rsna_seq.config import EmbedConfig
from rsna_seq.nets.augment import augment, draw

STILL = EmbedConfig(
    flip_prob=0, depth_flip=0, rotate_deg=0, scale=0, shift=0, hu_scale=0, hu_shift=0, hu_noise=0, erase=0
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
