"""Benchmark of ``watch``: studies one after another, from complete to stored back, in one process.

Each study is written when the one before is finished, scored by the model in the package, and its DICOM
results are sent by C-STORE to a server on loopback. So the disk holds one study at a time, however many there
are.

1. Latency: from complete to stored, against the time that the CNNs alone take for the same study.
2. Throughput: studies per hour.
3. Memory: growth of the resident memory from the first tenth of the studies to the last one.
"""

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from harness import Bench, Options, Row, main
from phantoms import scratch, templates, write_copies

from rsna_seq.config import IndexConfig, load_config
from rsna_seq.imaging.volume import Volume
from rsna_seq.service.addresses import parse_address
from rsna_seq.service.jobs import Job
from rsna_seq.service.queue import QUEUE, Queue
from rsna_seq.service.scorer import Scorer
from rsna_seq.service.send import StoreDestination
from rsna_seq.service.source import Inbox, put
from rsna_seq.service.worker import Worker
from rsna_seq.stages import cache, embed, index

_SLICES = 34
"""Median of the competition's studies."""
_ABOVE_S, _GROWTH_MB = 3.0, 50.0


def measure(options: Options) -> list[Row]:
    """Measure all rows."""
    slices = 6 if options.toy else _SLICES
    with scratch(options.data) as folder, _storage() as address:
        scorer = Scorer(load_config(None, ["device=cpu"]), dicom=True)
        cnn_s = _cnn_seconds(scorer, options, folder / "alone", slices)
        with closing(Queue(folder / QUEUE)) as queue:
            cfg = scorer.cfg.service
            inbox, target = Inbox(folder, cfg), StoreDestination(parse_address(address, "address"))
            worker = Worker(queue, scorer, folder, cfg, destination=target)
            memory, latency = [], []
            start = time.perf_counter()
            for number in range(options.size):
                job = _answered(worker, inbox, options, number, slices)
                latency.append((job.sent or 0.0) - (job.stable or 0.0))
                memory.append(_resident_mb())
                shutil.rmtree(folder / "answers")
            hours = (time.perf_counter() - start) / 3600
    middle, early = statistics.median(latency), memory[max(0, len(memory) // 10 - 1)]
    figures = {"latency_s": middle, "slowest_s": max(latency), "cnn_s": cnn_s}
    name = f"{slices} slices, complete to stored back"
    return [
        Row(f"{name}, above the CNN", "limit", "s", middle - cnn_s, None, _ABOVE_S, "most", figures=figures),
        Row("throughput, writing the studies included", "none", "studies/h", options.size / hours, rule=None),
        Row("growth of memory", "limit", "MB", memory[-1] - early, None, _GROWTH_MB, "most"),
    ]


def _answered(worker: Worker, inbox: Inbox, options: Options, number: int, slices: int) -> Job:
    """Put one new study into the queue, and let the worker answer and send it."""
    folder, queue = inbox.new(), worker.queue
    files = _study(options, folder, slices, number)
    study = f"study {number}"
    kept, _ = put(queue, ("bench", study, study), inbox, folder, files)
    assert worker.step()
    job = queue.job(kept)
    assert job is not None
    assert job.sent is not None, job.reason
    return job


def _study(options: Options, folder: Path, slices: int, number: int) -> list[Path]:
    """Write one phantom study of its own bytes."""
    longest = [max(templates(options), key=len)]
    files = write_copies(longest, min(slices, len(longest[0])), folder)
    with files[0].open("r+b") as first:
        first.write(number.to_bytes(8, "little"))  # in the preamble (PS3.10 7.1), which means nothing
    return files


def _cnn_seconds(scorer: Scorer, options: Options, folder: Path, slices: int) -> float:
    """Median time of all networks for one study that is read already."""
    _study(options, folder, slices, 0)
    scan = index.scan(folder, IndexConfig())
    volumes = [
        (run, _volume(cache.apply(rows, scan.root, run.cache)))
        for run in scorer.trained
        for rows in cache.split_by_pass(scan.slices)
    ]
    seconds = []
    for _ in range(1 + (1 if options.toy else 5)):
        start = time.perf_counter()
        for run, volume in volumes:
            for network in run.embedders.values():
                embed.apply(network, volume)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # the first one warms up


def _volume(read: cache.Read) -> Volume:
    assert read.volume is not None
    return read.volume


@contextmanager
def _storage() -> Iterator[str]:
    """A DICOM server on a free port of loopback that accepts everything; its address."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    entity = AE(ae_title="STORE")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)]
    )
    assert server is not None
    try:
        yield f"dicom://STORE@127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()


def _resident_mb() -> float:
    """Resident memory of this process now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    raise SystemExit(main(Bench("watch", "studies", 200, 2, measure, cores=2)))
