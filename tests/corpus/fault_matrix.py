"""Every file of a finished run, damaged in every way, read by every command: noticed, or without effect.

``python tests/corpus/fault_matrix.py RUN DATA`` prints a row per damage and consumer; ``make faults`` makes
the run and walks the whole matrix. A case is *noticed* when the command ends with exit code 6 (2 for
``config.yaml``) and names the file or its stage, *rebuilt* when it says so and its result is that of the
undamaged run, *harmless* when its result is that of the undamaged run, and *silent* when it is not: there may
be none of those.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

STAGES = ("index", "cache", "embed", "sequence", "stack", "evaluate")
RESULTS = {
    **{stage: f"{i + 1}_{stage}" for i, stage in enumerate(STAGES)},
    "predict": "../answer",
}
"""Where each command leaves what is compared."""
_NO_RESULT = {"manifest.json", ".lock", "report.html", "history.json", "unfinished.json"}
"""They hold times, or a picture of what else is compared."""


@dataclass(frozen=True)
class Case:
    """One damage to one file, and who meets it."""

    file: str
    damage: str
    consumer: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case."""

    case: Case
    kind: str
    """noticed, rebuilt, harmless, or silent."""
    code: int
    printed: str


def flip(path: Path, other: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    replace(path, bytes(content))


def truncate(path: Path, other: Path) -> None:
    """Cut the second half."""
    replace(path, path.read_bytes()[: path.stat().st_size // 2])


def delete(path: Path, other: Path) -> None:
    """Remove the file."""
    path.unlink()


def exchange(path: Path, other: Path) -> None:
    """Put the same file of another run in its place."""
    replace(path, other.read_bytes())


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "flipped bit": flip,
    "truncated": truncate,
    "deleted": delete,
    "replaced by another run's": exchange,
}


def replace(path: Path, content: bytes) -> None:
    """Replace a file: the copy of the run shares its files with the run itself."""
    path.unlink()
    path.write_bytes(content)


def cases(run: Path, other: Path) -> Iterator[Case]:
    """All cases of a run: its files, the damages that change them, and the commands that come after."""
    for path in sorted(p for p in run.rglob("*") if p.is_file() and p.name != ".lock"):
        file = path.relative_to(run).as_posix()
        own = next((i for i, stage in enumerate(STAGES) if file.startswith(RESULTS[stage])), len(STAGES))
        following = STAGES[own + 1 : own + 2]
        for damage in DAMAGES:
            twin = other / file
            if damage == "replaced by another run's" and (
                not twin.is_file() or twin.read_bytes() == path.read_bytes()
            ):
                continue
            if path.stat().st_size == 0:
                continue
            for consumer in dict.fromkeys((*following, "evaluate", "predict")):
                yield Case(file, damage, consumer)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every result below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(_TIME.sub(b"", path.read_bytes())).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _NO_RESULT
    }


_TIME = re.compile(rb'"seconds": [0-9.]+')
"""The time that a study took, in ``studies.json``: no result."""


def call(words: list[str]) -> tuple[int, str]:
    """A command in this process: its exit code and what it printed."""
    from rsna_seq import console
    from rsna_seq.__main__ import main

    told, before = io.StringIO(), sys.argv
    sys.argv = ["rsna-seq", *words]
    console.console.file = told
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            main()
    except SystemExit as end:
        return int(end.code or 0), told.getvalue()
    finally:
        sys.argv = before
        console.console.file = None  # type: ignore[assignment]
    raise AssertionError("a command ends in SystemExit")


@dataclass(frozen=True)
class Matrix:
    """A finished run, another one, and the words of every command on them."""

    run: Path
    other: Path
    data: Path
    words: list[str]

    def command(self, consumer: str, run: Path) -> list[str]:
        """The command line of a consumer on a copy of the run."""
        if consumer == "predict":
            out = str(run.parent / "answer")
            return [
                "predict",
                str(self.data / "stage_2_train"),
                "--run",
                str(run),
                "--out",
                out,
                "device=cpu",
            ]
        return [consumer, "--out", str(run), f"data.root={self.data}", *self.words]

    def result(self, consumer: str, run: Path) -> dict[str, str]:
        """What the consumer left."""
        return digests(run / RESULTS[consumer])

    def baseline(self, consumer: str) -> dict[str, str]:
        """What the consumer leaves of the undamaged run."""
        with tempfile.TemporaryDirectory() as place:
            run = self.copy(Path(place), consumer)
            code, printed = call(self.command(consumer, run))
            assert code == 0, printed
            return self.result(consumer, run)

    def copy(self, place: Path, consumer: str) -> Path:
        """A copy of the run for a consumer, whose own former result is not part of it."""
        run = place / "run"
        shutil.copytree(self.run, run, copy_function=os.link)
        if consumer in STAGES:
            shutil.rmtree(run / RESULTS[consumer])
        return run

    def walk(self, case: Case, baseline: dict[str, str]) -> Outcome:
        """Damage a copy and let the consumer meet it."""
        with tempfile.TemporaryDirectory() as place:
            run = self.copy(Path(place), case.consumer)
            if not (run / case.file).exists():  # the consumer's own result, which it makes again
                return Outcome(case, "harmless", 0, "")
            DAMAGES[case.damage](run / case.file, self.other / case.file)
            code, printed = call(self.command(case.consumer, run))
            same = code == 0 and self.result(case.consumer, run) == baseline
            # config.yaml is the user's to edit: what is no longer YAML, or no config, is a usage error
            fault = code == 6 or (code == 2 and case.file == "config.yaml")
            named = fault and (Path(case.file).name in printed or case.file.split("/")[0] in printed)
            # a manifest that is gone is an unfinished stage, and `evaluate` names those that it leaves out
            stage = case.file.split("/")[0].partition("_")[2]
            named |= code == 0 and f"{stage} is not finished and is not scored" in printed
            # predict needs `evaluate` for its thresholds only, and says where they are those of the config
            named |= code == 0 and stage == "evaluate" and "(predict.threshold): evaluate" in printed
            kind = "noticed" if named else "rebuilt" if same and "rebuilding" in printed else "harmless"
            return Outcome(case, kind if named or same else "silent", code, printed)


def main(run: Path, other: Path, data: Path, words: list[str]) -> int:
    """Walk the whole matrix and print the outcomes."""
    matrix, counts, silent = Matrix(run, other, data, words), Counter[str](), []
    known: dict[str, dict[str, str]] = {}
    for case in cases(run, other):
        if case.consumer not in known:
            known[case.consumer] = matrix.baseline(case.consumer)
        outcome = matrix.walk(case, known[case.consumer])
        counts[outcome.kind] += 1
        if outcome.kind == "silent":
            silent.append(outcome)
            print(f"SILENT {case}: exit {outcome.code}\n{outcome.printed[-600:]}", flush=True)
    print(json.dumps({"cases": counts.total(), **counts}))
    return bool(silent)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]))
