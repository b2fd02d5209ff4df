"""Unseen studies against training studies: those alike are seldom flagged, shifted ones always."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsna_seq.imaging.volume import Volume
from rsna_seq.scoring.novelty import NUMBERS, UNMEASURED, Space, Training
from rsna_seq.scoring.training_studies import study_numbers
from rsna_seq.store.tables import STUDY_CHECKS, TRAINING, from_rows

FEATURES = 40


def vectors_of(random: np.random.Generator, studies: int) -> np.ndarray:
    """Vectors of studies that are alike: few directions vary much, most little."""
    mixing = np.random.default_rng(99).normal(size=(6, FEATURES))
    return (random.normal(size=(studies, 6)) @ mixing + random.normal(0, 0.3, (studies, FEATURES))).astype(
        "f4"
    )


def numbers_of(random: np.random.Generator) -> dict[str, float | None]:
    """Numbers of one study of a scanner fleet like that of the phantoms: one in ten is thin."""
    thin = random.random() < 0.1
    spacing = float(random.choice([2.5, 3.0])) if thin else 5.0
    return {
        "brain_hu": float(random.normal(32, 2)),
        "noise_hu": float(random.lognormal(1.0, 0.28) * np.sqrt(5 / spacing)),
        "spacing_mm": spacing,
        "largest_gap_mm": spacing * float(random.choice([1.0, 1.0, 2.0])),
    }


def training_of(studies: int, seed: int = 0, nets: int = 2) -> Training:
    """Training studies as ``stack`` writes them, in ``nets`` spaces that differ by a turn of the axes."""
    random = np.random.default_rng([seed, studies])
    vectors, rows = vectors_of(random, studies), []
    net = np.sort(np.arange(studies) % nets)
    away = np.concatenate([Space.of(vectors[net == k]).among_themselves() for k in range(nets)])
    for i in range(studies):
        rows.append(
            {"study": f"S{i}", "net": int(net[i]), **numbers_of(random), "embedding_distance": float(away[i])}
        )
    return Training(from_rows(rows, TRAINING), vectors)


def judged(training: Training, random: np.random.Generator, shift: float = 0.0, **change: float) -> dict:
    """The verdict on a study that is like training, but for the numbers in ``change`` (factors)."""
    numbers = {name: value * change.get(name, 1.0) for name, value in numbers_of(random).items()}
    vector = vectors_of(random, 1)[0] + shift
    nets = training.table["net"].unique()
    return training.judge({**numbers, "embedding_distance": training.distance(dict.fromkeys(nets, vector))})


@pytest.mark.parametrize(("studies", "most"), [(14, 0.1), (56, 0.05), (400, 0.05)])
def test_of_studies_alike_at_most_one_in_twenty_is_flagged(studies: int, most: float) -> None:
    flagged, repeats = [], 8
    for seed in range(repeats):
        training = training_of(studies, seed)
        random = np.random.default_rng([5, seed])
        flagged += [judged(training, random)["unlike_training"] for _ in range(40)]
    assert np.mean(flagged) <= most  # 14 studies do not contain every spacing


@pytest.mark.parametrize("studies", [14, 56, 400])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"brain_hu": 1.47}, "brain tissue at"),
        ({"noise_hu": 4.0}, "noise of"),
        ({"spacing_mm": 3.0, "largest_gap_mm": 3.0}, "slices every"),
        ({"largest_gap_mm": 6.0}, "a gap of"),
        ({"shift": 8.0}, "images at a distance of"),
    ],
)
def test_a_study_from_elsewhere_is_flagged_with_its_reason(
    studies: int, change: dict[str, float], words: str
) -> None:
    training = training_of(studies)
    random = np.random.default_rng(6)
    verdicts = [judged(training, random, **change) for _ in range(40)]
    found = np.mean([words in v["unlike_reason"] for v in verdicts])
    noise = 0.2 if studies == 14 else 0.6  # noise varies by a factor of 3 in training
    assert found >= (noise if "noise_hu" in change else 0.9)
    for verdict in verdicts:
        assert verdict["unlike_training"] == (verdict["novelty"] > 1) == bool(verdict["unlike_reason"])
        assert {"study", *verdict} | {c for c in STUDY_CHECKS if c.endswith("_spread")} == set(STUDY_CHECKS)


def test_a_reason_gives_the_value_and_the_range_of_training() -> None:
    training = training_of(56)
    verdict = judged(training, np.random.default_rng(1), brain_hu=2.0)
    low, high = (f"{training.table['brain_hu'].quantile(q, 'linear'):.0f}" for q in (0.005, 0.995))
    assert (
        f"brain tissue at {verdict['brain_hu']:.0f} HU (training {low} to {high})" in verdict["unlike_reason"]
    )
    assert verdict["brain_hu_percentile"] == 100


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_cannot_be_measured_is_unlike_training_where_all_have_it(name: str) -> None:
    training = training_of(56)
    numbers: dict[str, float | None] = dict.fromkeys(NUMBERS, None)
    for known in NUMBERS:
        numbers[known] = float(training.table[known].median())  # type: ignore[arg-type]
    assert not training.judge(numbers)["unlike_training"]
    verdict = training.judge({**numbers, name: None})
    assert verdict["novelty"] == UNMEASURED
    assert "unknown" in verdict["unlike_reason"]
    assert verdict[f"{name}_percentile"] is None
    training.table = training.table.with_columns(pl.when(pl.int_range(pl.len()) > 2).then(name).alias(name))
    del training.__dict__["_known"]
    assert not training.judge({**numbers, name: None})["unlike_training"]


def test_fewer_than_five_training_studies_judge_nothing() -> None:
    verdict = judged(training_of(4), np.random.default_rng(0), brain_hu=9.0)
    assert (verdict["unlike_training"], verdict["novelty"]) == (False, 0.0)


def test_a_training_study_is_not_compared_with_itself() -> None:
    training = training_of(60, nets=1)
    own = training.table["embedding_distance"].to_numpy()
    assert np.median(own) == pytest.approx(1.0)
    random = np.random.default_rng(8)
    unseen = [training.distance({0: vectors_of(random, 1)[0]}) for _ in range(60)]
    assert np.median(unseen) == pytest.approx(1.0, abs=0.15)  # as far as training studies from each other


# numbers of a volume


def head_volume(
    random: np.random.Generator, brain: float = 30.0, noise: float = 3.0, gap: float = 5.0
) -> Volume:
    y, x = np.mgrid[:64, :64] / 64 - 0.5
    inside = x**2 + y**2 < 0.16
    hu = np.where(inside, brain, -1000.0) + random.normal(0, noise, (12, 64, 64)) * inside
    return Volume("S", hu.round().astype(np.int16), gap * np.arange(12.0))


@settings(max_examples=15)
@given(st.integers(20, 45), st.floats(1.0, 12.0), st.integers(-15, 15), st.floats(0.5, 20))
def test_the_numbers_of_a_volume(brain: int, noise: float, shift: int, gap: float) -> None:
    volume = head_volume(np.random.default_rng(0), brain + shift, noise, gap)
    numbers = study_numbers(volume, shift)
    assert numbers["brain_hu"] == pytest.approx(brain, abs=1.0)  # before the shift of the cache
    assert numbers["noise_hu"] == pytest.approx(noise * np.sqrt(8 / 9), rel=0.15, abs=0.3)
    assert numbers["spacing_mm"] == pytest.approx(gap)
    assert numbers["largest_gap_mm"] == pytest.approx(gap)


@pytest.mark.parametrize("slabs", [1, 2, 5])
def test_a_volume_without_brain_or_with_one_slab_has_unknown_numbers(slabs: int) -> None:
    air = Volume("S", np.full((slabs, 32, 32), -1000, dtype=np.int16), 5.0 * np.arange(slabs))
    numbers = study_numbers(air, 0)
    assert numbers["brain_hu"] is None
    assert numbers["noise_hu"] is None
    assert (numbers["spacing_mm"] is None) == (slabs == 1)
