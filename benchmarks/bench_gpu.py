"""Benchmark of ``embed`` on one GPU, from the cache on, against the bare network on tensors that are ready.

1. For the backbone of ``configs/base.yaml`` and three others of its size, with random weights: training and
   inference in bf16 and channels-last layout, with and without ``torch.compile``.
2. Our figure is the stage itself: reading, copying, augmentation and windows on the device, loss, clipping,
   moving average; at inference, the vectors on disk. The bare network is forward, loss, backward and AdamW,
   or forward alone, on one batch that is ready on the device.
3. Times are taken between marks around the request for each batch: CUDA events on a GPU, which wait for
   nothing. The time between the two marks of a request is the time in which the GPU had nothing to do because
   the batch was not there.

Without a GPU it runs only with ``--toy``, on the CPU, as a check that it runs. At toy size ``torch.compile``
captures the network but generates no code, which would take minutes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from harness import Bench, Options, Row, cores, main, peak_mb
from marks import Marks
from phantoms import scratch, write_cache
from torch import Tensor, nn

from rsna_seq.config import Config, EmbedConfig, load_config
from rsna_seq.labels import CLASSES
from rsna_seq.nets.cnn import Embedder, weighted_bce
from rsna_seq.nets.loop import Job
from rsna_seq.stages import embed
from rsna_seq.store.array_file import array_writer
from rsna_seq.store.pixel_cache import PixelCache

_UNIT = "slices/s"
_ALTERNATIVES = ("convnext_tiny", "resnet50", "efficientnet_b4")
"""Backbones of a size similar to that of ``base.yaml``."""
_TOY = ("test_resnet",)
_REFERENCE_SLICES = 752_803
"""Training slices of the competition's second stage."""
_WARM = 6
"""Batches before the timing: compilation, choice of algorithms, growth of the memory pool."""
_LEAST = 0.9
"""Target for our share of the bare network's speed."""


@dataclass(frozen=True)
class Case:
    """One backbone, compiled or not, and its data."""

    cfg: EmbedConfig
    cache: PixelCache
    folder: Path
    device: torch.device

    @property
    def name(self) -> str:
        """Backbone, and whether it is compiled."""
        return f"{self.cfg.backbone.split('.')[0]}{', compiled' if self.cfg.compile else ''}"

    def warm(self, items: int) -> int:
        """Return how many of so many items are not timed."""
        return min(_WARM, items // 2)


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    if not options.toy and not torch.cuda.is_available():
        raise SystemExit("bench_gpu: torch finds no CUDA GPU. With --toy it runs on the CPU, as a check.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(len(cores()))
    config = load_config("base")
    toy = {"batch_size": 4, "size": 32} if options.toy else {}
    cfg = config.embed.model_copy(update={"pretrained": False, "epochs": 1, **toy})
    backbones = _TOY if options.toy else (cfg.backbone, *_ALTERNATIVES)
    rows = []
    with scratch(options.data) as folder, _capture_only() if options.toy else nullcontext():
        cache = write_cache(options, folder, options.size, size=None if options.toy else config.cache.size)
        cache.check()
        for backbone in backbones:
            for compiled in (False, True):
                changed = cfg.model_copy(update={"backbone": backbone, "compile": compiled})
                rows += measure_case(Case(changed, cache, folder / f"{backbone}{compiled}", device), config)
    return rows


def _capture_only() -> AbstractContextManager[object]:
    """Compile without generating code."""
    return patch.object(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))


def measure_case(case: Case, config: Config) -> list[Row]:
    """Measure one backbone: a row for training and a row for inference."""
    torch._dynamo.reset()
    found, rows = {}, []
    for mode, ours, bare in (("train", _train, _bare_train), ("infer", _infer, _bare_infer)):
        if case.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        figures = ours(case)
        peak = torch.cuda.max_memory_allocated() / 1e9 if case.device.type == "cuda" else peak_mb() / 1e3
        found[mode] = (figures | {"peak_gb": peak}, _within_memory(bare, case))
    hours = reference_hours(config, *(found[mode][0]["slices_per_s"] for mode in ("train", "infer")))
    for mode, (figures, theirs) in found.items():
        note = f"waiting for data {figures['waiting_share']:.1%}, peak {figures['peak_gb']:.1f} GB"
        note += f", {figures['host_waits_per_item']:.1f} waits of the host per item"
        note += f", reference run {hours:,.0f} h" if mode == "train" else ""
        note += "" if theirs else "; the bare network does not fit into memory"
        rule = "least" if theirs else None
        figures |= {"reference_hours": hours}
        name = f"{case.name}, {mode}"
        peer = "bare network, ready tensors"
        rate = figures["slices_per_s"]
        rows.append(Row(name, peer, _UNIT, rate, theirs, _LEAST, rule, note, figures=figures))
    return rows


def reference_hours(config: Config, train: float, infer: float) -> float:
    """Return the hours of ``embed`` on the competition's training set, on one GPU.

    Args:
        config: Folds, held-out share and epochs.
        train: Slices per second in training.
        infer: Slices per second at inference, for the validation after each epoch and for the embeddings of
            the fold left out and of the held-out patients.
    """
    folds, held_out = config.index.folds, config.index.holdout
    fold = (1 - held_out) / folds
    trained = config.embed.epochs * (folds - 1) * fold
    inferred = (config.embed.epochs + 1) * fold + held_out
    return folds * _REFERENCE_SLICES * (trained / train + inferred / infer) / 3600


def _train(case: Case) -> dict[str, float]:
    """Train one epoch by the stage, and return its figures."""
    marks, whole = Marks(case.device), embed.fit_net

    def fit_net(job: Job, *args: Any, **kwargs: Any) -> nn.Module:
        marked = replace(job, batches=lambda epoch: marks.around(job.batches(epoch), lambda b: len(b[0])))
        return whole(marked, *args, **kwargs)

    train = _labelled(case.cache)
    with patch.object(embed, "fit_net", fit_net), marks.counting_waits():
        embed.fit(
            *(case.cfg, case.cache, train, train.clear(), case.folder),
            device=case.device.type,
            workers=len(cores()),
        )
    return marks.figures(case.warm(len(marks.sizes)))


def _infer(case: Case) -> dict[str, float]:
    """Embed all studies by the stage, and return its figures."""
    marks, read = Marks(case.device), embed.read_studies
    rows = _labelled(case.cache)
    net = Embedder(case.cfg).eval().on(case.device, compiled=True)

    def read_studies(*args: Any) -> Iterator[Any]:
        return marks.around(read(*args), len)

    with (
        patch.object(embed, "read_studies", read_studies),
        marks.counting_waits(),
        array_writer(case.folder / "vectors.npy", np.float32, (net.features,), rows=len(rows)) as vectors,
    ):
        embed._embed(net, case.cache, rows, 0, vectors.append)
    return marks.figures(case.warm(len(marks.sizes)))


def _within_memory(bare: Callable[[Case], float], case: Case) -> float | None:
    """Return slices per second of the bare network, or None if one batch does not fit into memory."""
    try:
        return bare(case)
    except torch.OutOfMemoryError:
        return None


def _bare_train(case: Case) -> float:
    """Return slices per second of forward, loss, backward and AdamW on one batch that is ready."""
    net = Embedder(case.cfg).on(case.device, compiled=True).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    stack = _ready(net, case)
    labels = torch.randint(0, 2, (len(stack), len(CLASSES)), device=case.device).float()

    def step() -> None:
        with _bf16(case.device):
            loss = weighted_bce(net.embed(stack)[1], labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return len(stack) / _seconds(step, case)


def _bare_infer(case: Case) -> float:
    """Return slices per second of the forward pass on one batch that is ready."""
    net = Embedder(case.cfg).eval().on(case.device, compiled=True)
    stack = _ready(net, case)

    @torch.inference_mode()
    def step() -> None:
        with _bf16(case.device):
            net.embed(stack)

    return len(stack) / _seconds(step, case)


def _ready(net: Embedder, case: Case) -> Tensor:
    """Return one batch of noise as the backbone's input, on the device."""
    size = case.cfg.size or case.cache.shard(0).shape[-1]
    channels = (2 * case.cfg.neighbours + 1) * len(net.windows)
    stack = torch.rand(case.cfg.batch_size, channels, size, size, device=case.device) * 2 - 1
    return stack.contiguous(memory_format=torch.channels_last)


def _bf16(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _seconds(step: Callable[[], None], case: Case) -> float:
    """Return seconds per call, after the calls that are not timed."""
    wait = torch.cuda.synchronize if case.device.type == "cuda" else lambda: None
    steps = max(1, len(case.cache.slabs) // case.cfg.batch_size)
    for _ in range(case.warm(2 * steps)):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - start) / steps


def _labelled(cache: PixelCache) -> pl.DataFrame:
    """Return the slabs with random labels."""
    random = np.random.default_rng(0)
    labels = [pl.Series(c, random.integers(0, 2, len(cache.slabs)), pl.Int8) for c in CLASSES]
    return cache.slabs.with_columns(labels)


def device_name() -> str:
    """Return the name of the GPU, or ``cpu``."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    bench = Bench("gpu", "slices", 2048, 16, measure, cores=len(cores()), device=device_name)
    raise SystemExit(main(bench))
