"""Many studies in a real Orthanc server, every tenth damaged, while ``watch`` is killed three times.

    python tests/service/many_studies.py [STUDIES]

Afterwards every study must be answered or have failed once, and the server must hold one report and one key
object selection of each that was answered. The last line is JSON with the figures.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "clinic"), str(HERE.parents[1])]
from servers import OrthancServer, own_network  # noqa: E402
from studies import QUICK, all_states, jobs_of, kill, start, states_of, wait_for, write_head  # noqa: E402

from rsna_seq.service import addresses  # noqa: E402

_KILLS = 3


def main(count: int) -> None:
    """Run it, and print the figures."""
    with tempfile.TemporaryDirectory() as folder, own_network():
        (Path(folder) / "orthanc").mkdir()
        with OrthancServer(Path(folder) / "orthanc") as server:
            os.environ |= {addresses.USER: server.user, addresses.PASSWORD: server.password}
            print(json.dumps(_run(Path(folder), server, count), sort_keys=True))


def _run(folder: Path, server: OrthancServer, count: int) -> dict[str, float]:
    """Store the studies, watch, kill, and check what is there in the end."""
    damaged = {n for n in range(1, count + 1) if n % 10 == 0}
    studies = {n: write_head(folder / "in", n, damaged=n in damaged) for n in range(1, count + 1)}
    server.store(folder / "in")
    out = folder / "out"
    words = ("watch", server.url, "--out", out, "--send", server.url, *QUICK, "service.max_waiting=1000")
    for turn in range(1, _KILLS + 1):
        process = start(*words)
        wait_for(lambda turn=turn: _done(out) >= turn * count // (_KILLS + 1), 1200)
        wait_for(lambda: "scoring" in all_states(out))
        said = kill(process)
        assert "Traceback" not in said, said
        print(f"killed after {_done(out)} studies", flush=True)
    at, before = time.monotonic(), _done(out)
    process = start(*words)
    wait_for(lambda: _done(out) == count and not {"stable", "scoring"} & all_states(out), 1200)
    seconds = time.monotonic() - at
    peak_mb = _peak_mb(process.pid)
    process.terminate()
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    expected = {study: ["failed" if n in damaged else "sent"] for n, study in studies.items()}
    assert states_of(out) == expected
    for n, study in studies.items():
        kinds = {modality: len(found) for modality, found in server.series(study).items()}
        assert (kinds.get("SR"), kinds.get("KO")) == ((None, None) if n in damaged else (1, 1)), study
    return {
        "studies": count,
        "sent": count - len(damaged),
        "failed": len(damaged),
        "killed": _KILLS,
        "studies_per_hour": round((count - before) / seconds * 3600),
        "most_tries": max(job.tries for job in jobs_of(out)),
        "peak_mb": round(peak_mb),
    }


def _done(out: Path) -> int:
    """Number of studies that have ended."""
    return sum(states[0] in {"sent", "failed"} for states in states_of(out).values())


def _peak_mb(process: int) -> float:
    """Peak resident memory of a process."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1000


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
