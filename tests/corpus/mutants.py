"""Mutants of good files of every transfer syntax, read in a process of 1 GiB and 2 s a file.

The law: a typed reason or a valid slice; never another exception, a crash, a hang, or a storm of warnings.

    python tests/corpus/mutants.py 10000
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

MEMORY_BYTES = 1 << 30
PATIENCE_S = 2
_WARNINGS = 5
"""More warnings than this from one file are a storm."""


def write_parents(folder: Path) -> list[bytes]:
    """A good file of every transfer syntax."""
    from dicoms import write_slice
    from transfer_syntaxes import SYNTAXES, write_encoded

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the competition's ids are no UIDs
        paths = [write_slice(folder, "explicit"), write_slice(folder, "implicit", implicit=True)]
        paths += [write_encoded(folder, name, syntax) for name, syntax in SYNTAXES.items()]
    return [path.read_bytes() for path in paths]


def mutate(parent: bytes, random: np.random.Generator) -> bytes:
    """Flip bytes, cut, insert, or change the length of an element; mostly in the header."""
    data = bytearray(parent)
    reach = len(data) if random.random() < 0.3 else min(len(data), 1400)
    for _ in range(int(random.integers(1, 5))):
        at, kind = int(random.integers(128, max(129, min(reach, len(data))))), random.random()
        if kind < 0.5:
            data[at : at + 1] = bytes([int(random.integers(256))])
        elif kind < 0.65:
            del data[at:]
        elif kind < 0.8:
            data[at:at] = random.bytes(int(random.integers(1, 40)))
        elif kind < 0.9:
            data[at : at + 4] = int(random.choice([0xFFFFFFFF, 0x7FFFFFFF, 0, 1, 0x10000])).to_bytes(
                4, "little"
            )
        else:
            other = int(random.integers(0, len(data)))
            data[at:at] = data[other : other + int(random.integers(1, 200))]
    return bytes(data)


def serve(seed: int, count: int) -> None:
    """Read mutants and print what became of them; what runs in the limited process."""
    import pydicom.pixels  # noqa: F401  (before the limit: libraries are not the files' fault)

    from rsna_seq.imaging.decoder import shared_decoder
    from rsna_seq.stages import index  # noqa: F401

    decoder = shared_decoder()
    decoder.patience_s = PATIENCE_S
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        parents = write_parents(Path(name) / "parents")
        outcomes, slowest = _read_all(parents, Path(name) / "mutants", seed, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    print(json.dumps({"outcomes": outcomes, "slowest_s": round(slowest, 3), "peak_mib": peak // 1024}))


def _read_all(parents: list[bytes], folder: Path, seed: int, count: int) -> tuple[Counter[str], float]:
    folder.mkdir()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    signal.signal(signal.SIGALRM, _hang)
    for number in range(count):
        random = np.random.default_rng([seed, number])
        path = folder / "mutant.dcm"
        path.write_bytes(mutate(parents[int(random.integers(len(parents)))], random))
        began = time.perf_counter()
        signal.setitimer(
            signal.ITIMER_REAL, 2 * PATIENCE_S + 6
        )  # a frame has two tries; starting a decoder is not the file's fault
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                outcomes[_read(folder)] += 1
            if len(caught) > _WARNINGS:
                raise RuntimeWarning(f"{len(caught)} warnings")  # noqa: TRY301
        except BaseException as error:
            outcomes["untyped"] += 1
            print(f"mutant {seed}/{number}: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)
    return outcomes, slowest


def _read(folder: Path) -> str:
    """Index and decode the one file of a folder: what the pipeline makes of it."""
    from rsna_seq.config import IndexConfig
    from rsna_seq.imaging.pixels import read_hu
    from rsna_seq.reasons import ExclusionError
    from rsna_seq.stages import index

    found = index.scan(folder, IndexConfig())
    if found.slices.is_empty():
        return str(found.quarantine["reason"][0])
    (row, *others) = found.slices.to_dicts()
    try:
        hu = read_hu(folder / row["file"], row)
    except ExclusionError as error:
        return str(error.reason)
    assert hu.shape == (row["rows"], row["columns"])
    assert hu.dtype == np.int16
    assert int(hu.min()) >= -1024
    assert not others or row["frame"] == 0
    return "read"


def _hang(_signal: int, _frame: object) -> None:
    raise TimeoutError("the file took too long")


def run(count: int, seed: int = 0) -> dict[str, object]:
    """Read so many mutants in limited processes of a thousand each; what became of them."""
    outcomes: Counter[str] = Counter()
    crashes, peak, slowest = 0, 0, 0.0
    for lot, first in enumerate(range(0, count, 1000)):
        words = [sys.executable, __file__, "--serve", str(seed + lot), str(min(1000, count - first))]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            crashes += 1
            print(f"lot {seed + lot} ended with {done.returncode}: {done.stderr[-2000:]}", file=sys.stderr)
            continue
        told = json.loads(done.stdout.splitlines()[-1])
        outcomes.update(told["outcomes"])
        peak, slowest = max(peak, told["peak_mib"]), max(slowest, told["slowest_s"])
        sys.stderr.write(done.stderr)
    return {
        "mutants": count,
        "crashes": crashes,
        "outcomes": outcomes,
        "peak_mib": peak,
        "slowest_s": slowest,
    }


def main() -> int:
    """Read mutants and print the table; 1 where the law is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=int, nargs="?", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        serve(asked.serve, asked.count)
        return 0
    told = run(asked.count, asked.seed)
    outcomes = dict(sorted(told.pop("outcomes").items(), key=lambda item: -item[1]))  # type: ignore[attr-defined]
    for name, number in outcomes.items():
        print(f"{number:8,}  {name}")
    untyped = outcomes.get("untyped", 0)
    print(
        f"{told['mutants']:,} mutants: {told['crashes']} crashes, {untyped} untyped errors or hangs; "
        f"peak memory {told['peak_mib']} MiB above the libraries, slowest file {told['slowest_s']} s"
    )
    return int(bool(told["crashes"] or untyped))


if __name__ == "__main__":
    sys.exit(main())
