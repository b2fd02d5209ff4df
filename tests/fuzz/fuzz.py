"""Fuzz one target for so many seconds, guided by coverage (atheris), and print what it found.

    python tests/fuzz/fuzz.py headers --seconds 900

A finding does not end the run: the smallest input of each kind is kept in ``build/fuzz/TARGET/findings``, and
the exit code is then 1. A crash or a hang of the process is kept there too, and the run goes on without it.
``--keep`` afterwards copies the smallest input of each outcome to ``tests/fuzz/corpus/TARGET``.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]
os.environ.setdefault("POLARS_MAX_THREADS", "1")  # small tables: threads only wait for one another

BLOCK = 64
"""Files that the fast reader is given at a time."""
HANG_S = 20
MEMORY_MIB = 2048
_MODULES = [
    "rsna_seq.imaging",
    "rsna_seq.datasets.rsna2019.label_csv",
    "pydicom.filereader",
    "pydicom.dataset",
    "pydicom.dataelem",
]
_MODULES += ["pydicom.values", "pydicom.valuerep", "pydicom.multival", "pydicom.fileutil", "zipfile"]
_LARGEST = 4096
"""Bytes of the largest input that is kept for the tests."""


def dictionary() -> bytes:
    """Words that the fuzzer inserts: tags, representations, transfer syntaxes, numbers, labels."""
    from pydicom.datadict import tag_for_keyword

    from rsna_seq.imaging.headers.fields import SHORTS, TEXTS
    from rsna_seq.labels import CLASSES

    tags = [
        int(tag_for_keyword(keyword) or 0)
        for keyword in (*TEXTS, *SHORTS, "PixelData", "ItemDelimitationItem")
    ]
    words = [(tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") for tag in tags]
    words += [vr.encode() for vr in ("UN", "OB", "OW", "SQ", "DS", "IS", "US", "SS", "LO", "UI", "CS", "PN")]
    words += [f"1.2.840.10008.1.2{end}".encode() for end in ("", ".1", ".2", ".5", ".1.99", ".4.70", ".4.90")]
    words += [
        b"\\",
        b"1e300",
        b"nan",
        b"inf",
        b"-0",
        b"0x1",
        b"1_0",
        b"\xff\xff\xff\xff",
        b"\xfe\xff\x00\xe0",
    ]
    words += [
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"../",
        b"\xef\xbb\xbf",
        b'"',
        b"\r\n",
    ]
    words += [b"ID,Label", b"name", b"1.0", b"true", *(name.encode() for name in CLASSES)]
    lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words]
    return "\n".join(lines).encode() + b"\n"


class Notebook:
    """Findings of a process: the smallest input of each kind, and how often each was met."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "findings.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.kinds: dict[str, dict[str, Any]] = (
            json.loads(self.file.read_text()) if self.file.exists() else {}
        )

    def note(self, data: bytes, error: BaseException) -> None:
        """Note an input that breaks the law."""
        kind = _kind(error)
        known = self.kinds.get(kind)
        if known is None or len(data) < known["size"]:
            name = hashlib.sha256(kind.encode()).hexdigest()[:12]
            (self.folder / name).write_bytes(data)
            words = "".join(traceback.format_exception(error))[-3000:]
            known = {"file": name, "size": len(data), "times": known["times"] if known else 0, "error": words}
            self.kinds[kind] = known
        known["times"] += 1
        if known["times"] in {1, 10, 100} or known["times"] % 1000 == 0 or known["size"] == len(data):
            self.file.write_text(json.dumps(self.kinds, indent=1))


def _kind(error: BaseException) -> str:
    """What makes two findings one: the law, or the error and the function of ours that it passed last."""
    if hasattr(error, "kind"):
        return str(error.kind)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/rsna_seq/" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {where}"


def child(target: str, seconds: int, work: Path) -> None:
    """Fuzz in this process until the time is over, or the process dies."""
    import atheris

    with atheris.instrument_imports(include=_MODULES):
        import targets
        from mutators import MUTATORS
    from seeds import seeds

    notebook, first = Notebook(work / "findings"), seeds(target)
    waiting: list[bytes] = []

    def one(data: bytes) -> None:
        try:
            targets.TARGETS[target](data, thorough=zlib.crc32(data) % 16 == 0)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of polars is no Exception
            notebook.note(data, error)

    def blocked(data: bytes) -> None:
        """The pair: the slow reader guides, the fast one reads a block of files at a time."""
        try:
            targets.headers(data)
        except Exception:  # the other target's finding
            return
        waiting.append(data)
        if len(waiting) < BLOCK:
            return
        files, waiting[:] = list(waiting), []
        try:
            for at, error in targets.differences(files)[1].items():
                notebook.note(files[at], error)
        except Exception:
            for file in files:
                one(file)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.4:  # else the inputs move away from those that are accepted
            data = random.choice(first)
        for _ in range(random.choice((1, 1, 2, 3))):
            data = MUTATORS[target](data, random, lambda part: atheris.Mutate(part, len(part) + 40))
        return data[:most]

    words = [
        f"-max_total_time={seconds}",
        "-reduce_inputs=0",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
    ]
    words += [
        f"-artifact_prefix={work}/findings/",
        f"-dict={work}/dictionary",
        "-print_final_stats=1",
        "-max_len=4096",
    ]
    words = [sys.argv[0], *words, str(work / "corpus")]
    atheris.Setup(words, blocked if target == "pair" else one, custom_mutator=mutated)
    atheris.Fuzz()


def fuzz(target: str, seconds: int, work: Path) -> int:
    """Fuzz a target in processes of their own, for so many seconds in all; how many inputs were tried."""
    from seeds import seeds

    (work / "corpus").mkdir(parents=True, exist_ok=True)
    (work / "dictionary").write_bytes(dictionary())
    stored = [file.read_bytes() for file in sorted((HERE / "corpus" / target).glob("*"))]
    for data in [*seeds(target), *stored]:
        (work / "corpus" / hashlib.sha1(data).hexdigest()).write_bytes(data)  # libFuzzer names files so
    room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory: an input is a file
    tried, end = 0, time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0:
        words = [sys.executable, __file__, target, "--seconds", str(left), "--work", str(work), "--child"]
        with (work / "log").open("wb") as log, tempfile.TemporaryDirectory(dir=room) as scratch:
            environment = {**os.environ, "TMPDIR": scratch}  # the process may end without tidying up
            subprocess.run(words, stdout=log, stderr=log, env=environment, check=False)
        told = (work / "log").read_text(errors="replace")
        found = re.findall(r"number_of_executed_units:\s+(\d+)", told) or re.findall(r"^#(\d+)", told, re.M)
        tried += int(found[-1]) if found else 0
        if not found:
            raise RuntimeError(f"{target}: the fuzzer does not start:\n{told[-2000:]}")
    return tried


def report(target: str, tried: int, work: Path) -> int:
    """Print what was found; how many kinds."""
    kinds = Notebook(work / "findings").kinds
    died = sorted(f.name for f in (work / "findings").glob("*-*") if f.is_file())
    print(f"{target}: {tried:,} executions, {len(list((work / 'corpus').iterdir())):,} inputs kept")
    for kind, about in sorted(kinds.items(), key=lambda item: -item[1]["times"]):
        print(
            f"  {about['times']:7,} x  {kind}  ({work / 'findings' / about['file']}, {about['size']:,} bytes)"
        )
    for name in died:
        print(f"  the process died or hung: {work / 'findings' / name}")
    return len(kinds) + len(died)


def keep(target: str, work: Path) -> None:
    """Copy the smallest input of each outcome, and of each finding, to the tests."""
    import targets

    smallest: dict[str, bytes] = {}
    for file in sorted((work / "corpus").iterdir(), key=lambda f: f.stat().st_size):
        data = file.read_bytes()
        try:
            outcome = targets.TARGETS[target](data)
        except Exception as error:
            outcome = _kind(error)
        if len(data) <= _LARGEST:
            smallest.setdefault(outcome, data)
    for kind, about in Notebook(work / "findings").kinds.items():
        smallest[kind] = (work / "findings" / about["file"]).read_bytes()
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for outcome, data in smallest.items():
        words = re.sub(r"[^a-z0-9]+", "_", outcome.lower()).strip("_")[:48]
        (folder / f"{words}_{hashlib.sha256(data).hexdigest()[:6]}").write_bytes(data)
    print(f"{target}: {len(smallest)} inputs kept")


def main() -> int:
    """Fuzz one target, or all in turn; 1 where something was found."""
    from seeds import TARGET_NAMES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", choices=[*TARGET_NAMES, "all"], default="all")
    parser.add_argument("--seconds", type=int, default=900, help="for each target")
    parser.add_argument("--work", type=Path, help="folder of the inputs found, and of the findings")
    parser.add_argument("--keep", action="store_true", help="copy the smallest inputs to the tests")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    findings = 0
    for target in TARGET_NAMES if asked.target == "all" else [asked.target]:
        work = asked.work or ROOT / "build" / "fuzz" / target
        if asked.child:
            child(target, asked.seconds, work)
        elif asked.keep:
            keep(target, work)
        else:
            findings += report(target, fuzz(target, asked.seconds, work), work)
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
