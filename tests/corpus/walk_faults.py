"""Make two tiny runs and walk the whole fault matrix on them: what ``make faults`` does."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import machine_faults
from dicoms import write_set
from fault_matrix import call, main
from tiny_run import TINY

WORDS = [*TINY, "cache.shard_slices=12"]


def walk() -> int:
    """0 where nothing was silent."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = write_set(folder / "data", studies=6, test_studies=0)
        for name, seed in (("run", 0), ("other", 1)):
            words = ["run", "--out", str(folder / name), f"data.root={data}", f"seed={seed}", *WORDS]
            code, printed = call(words)
            assert code == 0, printed
        silent = main(folder / "run", folder / "other", data, [*WORDS, "seed=0"])
        print(f"{machine_faults.walk(folder / 'run', data, [*WORDS, 'seed=0'])} faults of the machine")
        return silent


if __name__ == "__main__":
    sys.exit(walk())
