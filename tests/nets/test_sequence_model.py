import numpy as np
import torch

from rsna_seq.config import SequenceConfig
from rsna_seq.nets.sequence_model import SequenceModel
from rsna_seq.nets.studies import EmbeddedStudy, augment_study, collate, length_batches


def _study(n: int, seed: int) -> EmbeddedStudy:
    random = np.random.default_rng(seed)
    return EmbeddedStudy(
        f"S{seed}",
        0,
        0,
        random.normal(size=(n, 16)).astype(np.float32),
        random.normal(size=(n, 6)).astype(np.float32),
        np.cumsum(random.uniform(1, 8, n)).astype(np.float32),
        random.integers(0, 2, (n, 6)).astype(np.float32),
    )


def _model(*, trained: bool = True) -> SequenceModel:
    torch.manual_seed(0)
    model = SequenceModel(SequenceConfig(projection_dim=16, hidden=8), 16).eval()
    if trained:
        torch.nn.init.normal_(model.correct.weight)
    return model


def test_a_study_does_not_depend_on_its_batch() -> None:
    model = _model()
    alone = model(collate([_study(9, 1)])[0])[0][0]
    together = model(collate([_study(30, 2), _study(9, 1), _study(1, 3)])[0])[0][1, :9]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_an_untrained_model_equals_the_smoothed_probabilities_of_the_cnn() -> None:
    study = _study(9, 1)
    refined = _model(trained=False)(collate([study])[0])[0][0].detach().numpy()
    distance = (study.z_mm[:, None] - study.z_mm[None]) / 6.0
    weight = np.exp(-0.5 * distance**2)
    expected = (weight / weight.sum(1, keepdims=True)) @ (1 / (1 + np.exp(-study.logits)))
    np.testing.assert_allclose(1 / (1 + np.exp(-refined)), expected, atol=1e-5)


def test_without_vectors_only_logits_and_positions_change_the_result() -> None:
    torch.manual_seed(0)
    model = SequenceModel(SequenceConfig(vectors=False, hidden=8), 16).eval()
    torch.nn.init.normal_(model.correct.weight)
    study, other = _study(9, 1), _study(9, 1)
    other.vectors[:] = 7
    assert torch.equal(model(collate([study])[0])[0], model(collate([other])[0])[0])


def test_vectors_refine_the_logits_of_each_slice_before_the_residual_path() -> None:
    model, study = _model(trained=False), _study(9, 1)
    torch.nn.init.constant_(model.refine.bias, 2.0)
    final, refined = model(collate([study])[0])
    np.testing.assert_allclose(refined[0].detach().numpy(), study.logits + 2, atol=1e-5)
    twin = EmbeddedStudy(**{**vars(study), "logits": study.logits + 2})
    untouched = _model(trained=False)(collate([twin])[0])[0]
    torch.testing.assert_close(final, untouched)


def test_a_single_slice_is_a_study() -> None:
    assert torch.isfinite(_model()(collate([_study(1, 4)])[0])[0]).all()


def test_reversal_flips_slabs_and_order_of_positions() -> None:
    study = _study(9, 1)
    turned = augment_study(study, np.random.default_rng(0), reverse=1.0, drop=0.0)
    assert np.array_equal(turned.vectors, study.vectors[::-1])
    assert np.array_equal(turned.labels, study.labels[::-1])
    np.testing.assert_allclose(np.diff(turned.z_mm), np.diff(study.z_mm)[::-1], rtol=1e-6)


def test_dropping_slices_keeps_at_least_one() -> None:
    random = np.random.default_rng(0)
    assert all(len(augment_study(_study(2, 1), random, reverse=0.5, drop=0.99)) >= 1 for _ in range(50))


def test_batches_hold_every_study_once_and_repeat_with_the_seed() -> None:
    studies = [_study(n, n) for n in range(1, 24)]
    batches = list(length_batches(studies, 5, seed=1, epoch=2))
    assert sorted(s.study for b in batches for s in b) == sorted(s.study for s in studies)
    again = list(length_batches(studies, 5, seed=1, epoch=2))
    assert [[s.study for s in b] for b in batches] == [[s.study for s in b] for b in again]
