"""Benchmark of ``embed`` against the network alone on prepared tensors: inference and training steps."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from harness import Bench, Options, Row, cores, main, race
from phantoms import scratch, write_cache
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from rsna_seq.config import EmbedConfig
from rsna_seq.labels import CLASSES
from rsna_seq.nets.augment import augment, draw
from rsna_seq.nets.cnn import Embedder, weighted_bce, window_stack
from rsna_seq.nets.data import SlabDataset
from rsna_seq.stages import embed
from rsna_seq.store.pixel_cache import PixelCache

_UNIT = "slices/s"
_STEPS = 3
"""Training steps per round; the first is not timed."""


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    torch.set_num_threads(len(cores()))
    batch = 4 if options.toy else 16
    cfg = EmbedConfig(
        backbone="test_resnet" if options.toy else "resnet18",
        pretrained=False,
        epochs=1,
        batch_size=batch,
        tta=False,
    )
    with scratch(options.data) as folder:
        cache = write_cache(options, folder, max(options.size, batch * _STEPS))
        torch.manual_seed(0)
        net = Embedder(cfg).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return [_inference(net, cache, options), _training(cfg, cache, folder, options)]


def _inference(net: Embedder, cache: PixelCache, options: Options) -> Row:
    """Compare the stage, from the cache to vectors on disk, with the network alone."""
    data = SlabDataset(cache, cache.slabs, net.cfg.neighbours, net.cfg.spacing_mm)
    studies = cache.slabs.with_row_index("at").group_by("study", maintain_order=True)
    names, ready = [], []
    for (study,), rows in studies:
        hu = data.__getitems__(rows["at"].to_list())[0].float()
        names.append(str(study))
        ready.append(_tensor(net, hu))
    whole = [embed.apply(net, cache.read(name)) for name in names]
    bare = _bare(net, ready)
    for one, (vectors, logits) in zip(whole, bare, strict=True):
        assert np.allclose(one.vectors, vectors.numpy(), rtol=1e-4, atol=1e-4)
        assert np.allclose(one.logits, logits.numpy(), rtol=1e-4, atol=1e-4)

    def stage() -> None:
        np.save(
            cache.folder / "vectors.npy",
            np.concatenate([embed.apply(net, cache.read(n)).vectors for n in names]),
        )

    seconds = race({"ours": stage, "bare": lambda: _bare(net, ready)}, options)
    rate = {name: len(data) / s for name, s in seconds.items()}
    return Row("embedding, whole stage", "forward alone", _UNIT, rate["ours"], rate["bare"], 0.95)


def _tensor(net: Embedder, hu: Tensor) -> Tensor:
    return window_stack(hu, net.windows).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _bare(net: Embedder, ready: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    vectors = [net.backbone(stack) for stack in ready]
    return [(v, net.classify(v)) for v in vectors]


def _training(cfg: EmbedConfig, cache: PixelCache, folder: Path, options: Options) -> Row:
    """Compare training steps of the stage, with reading and augmentation, with forward and backward alone."""
    random = np.random.default_rng(0)
    labels = [pl.Series(c, random.integers(0, 2, len(cache.slabs)), pl.Int8) for c in CLASSES]
    train = cache.slabs.with_columns(labels).head(_STEPS * cfg.batch_size)
    data = SlabDataset(cache, train, cfg.neighbours, cfg.spacing_mm)
    net = Embedder(cfg).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    hu, truth = data.__getitems__(list(range(cfg.batch_size)))
    ready = _tensor(net, hu.float())
    assert_same_input(cfg, net, hu.float(), ready)

    def bare() -> None:
        net.zero_grad()
        weighted_bce(net.classify(net.backbone(ready)), truth).backward()

    bare()
    ours, theirs = [], []
    for turn in range(options.repeats):
        ours += _step_seconds(cfg, cache, train, folder / f"fit{turn}", options.now)
        theirs += _timed(bare, _STEPS - 1, options.now)
    rate = [cfg.batch_size / statistics.median(seconds) for seconds in (ours, theirs)]
    return Row("training step, augmented", "forward and backward", _UNIT, rate[0], rate[1], 0.9)


def assert_same_input(cfg: EmbedConfig, net: Embedder, hu: Tensor, ready: Tensor) -> None:
    """Assert that without augmentation the stage and the network alone get the same input."""
    still = dict.fromkeys(
        (
            "flip_prob",
            "depth_flip",
            "rotate_deg",
            "scale",
            "shift",
            "hu_scale",
            "hu_shift",
            "hu_noise",
            "hu_kernel",
            "erase",
        ),
        0.0,
    )
    draws = draw(cfg.model_copy(update=still), len(hu), torch.Generator().manual_seed(0))
    assert torch.allclose(_tensor(net, augment(hu, draws)), ready, atol=1e-3)


def _step_seconds(
    cfg: EmbedConfig, cache: PixelCache, train: pl.DataFrame, folder: Path, now: Callable[[], float]
) -> list[float]:
    """Return the seconds between consecutive training steps."""
    with _starts(now) as at:
        embed.fit(cfg, cache, train, train.clear(), folder, device="cpu")
    return np.diff(at).tolist()


@contextmanager
def _starts(now: Callable[[], float]) -> Iterator[list[float]]:
    """Record the times at which the network is called in training."""
    at: list[float] = []

    def note(module: Any, _: Any) -> None:
        if isinstance(module, Embedder) and module.training:
            at.append(now())

    hook = register_module_forward_pre_hook(note)
    try:
        yield at
    finally:
        hook.remove()


def _timed(run: Callable[[], None], times: int, now: Callable[[], float]) -> list[float]:
    seconds = []
    for _ in range(times):
        start = now()
        run()
        seconds.append(now() - start)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main(Bench("embed", "slices", 68, 12, measure, cores=2)))
