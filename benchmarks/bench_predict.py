"""Benchmark of ``predict``: one DICOM study to probabilities in a warm process, against the CNN alone."""

from pathlib import Path

import cv2
import numpy as np
import polars as pl
import torch
from harness import Bench, Options, Row, main, race
from phantoms import scratch, templates, write_copies
from torch import Tensor
from trained import train_run

from rsna_seq.config import IndexConfig
from rsna_seq.imaging.neighbours import neighbour_indices
from rsna_seq.imaging.volume import Volume
from rsna_seq.nets.cnn import Embedder, window_stack
from rsna_seq.stages import cache, embed, index
from rsna_seq.stages.predict.library import predict
from rsna_seq.stages.predict.trained import TrainedRun

_LIMIT = 1.3


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with scratch(options.data) as folder:
        longest = max(templates(options), key=len)
        slices = min(options.size, len(longest))
        write_copies([longest], slices, folder / "study")
        backbone = "test_resnet" if options.toy else "resnet18"
        run = train_run(folder, backbone=backbone, size=options.matrix // 2)
        network, volume = run.embedders[0], _volume(folder / "study", run)
        ready = _ready(network, volume)
        assert_same(folder / "study", run, volume, ready)
        runs = {"ours": lambda: predict(folder / "study", run), "bare": lambda: _bare(network, ready)}
        seconds = race(runs, options)
    name = f"{slices} slices, DICOM to probabilities"
    return [Row(name, "CNN forward alone", "s", seconds["ours"], seconds["bare"], _LIMIT, "most")]


def _volume(folder: Path, run: TrainedRun) -> Volume:
    scan = index.scan(folder, IndexConfig())
    (sweep,) = cache.split_by_pass(scan.slices)
    volume = cache.apply(sweep, scan.root, run.cache).volume
    assert volume is not None
    return volume


def _ready(network: Embedder, volume: Volume) -> Tensor:
    """Return the input tensor of the backbone for the whole study."""
    at = neighbour_indices(volume.z_mm, network.cfg.neighbours, network.cfg.spacing_mm)
    stack = torch.from_numpy(volume.hu.astype(np.float32)[at])
    return window_stack(stack, network.windows).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _bare(network: Embedder, ready: Tensor) -> tuple[Tensor, Tensor]:
    vectors = network.backbone(ready)
    return vectors, network.classify(vectors)


def assert_same(folder: Path, run: TrainedRun, volume: Volume, ready: Tensor) -> None:
    """Assert that both use the same network, and that the prediction equals the run's score of the study."""
    seen = embed.apply(run.embedders[0], volume)
    assert np.allclose(seen.vectors, _bare(run.embedders[0], ready)[0].numpy(), rtol=1e-4, atol=1e-4)
    answer = predict(folder, run).sort("z_mm").select(pl.nth(range(-6, 0))).to_numpy()
    assert np.allclose(answer, run.score(volume), atol=1e-6)


if __name__ == "__main__":
    raise SystemExit(main(Bench("predict", "slices", 34, 6, measure)))
