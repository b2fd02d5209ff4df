"""The laws of foreign input on the DICOM files that pydicom ships, which are here wherever the package is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from pydicom.data import DATA_ROOT


def test_the_files_that_pydicom_ships_are_read_as_pydicom_reads_them() -> None:
    script = Path(__file__).parent / "alone.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), DATA_ROOT],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["faults"], "\n".join(found["faults"])
    excluded = sum(count for reason, count in found["reasons"].items() if not reason.startswith("pixels: "))
    assert found["read"] + excluded == found["files"]
    assert found["compared"] == found["equal"] >= 10
    assert found["fast"] >= 4
    assert found["peak_mib"] < 512
