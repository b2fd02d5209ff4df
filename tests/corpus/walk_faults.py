"""Make two tiny runs and walk the whole fault matrix on them: what ``make faults`` does."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import machine_faults
from dicoms import write_set
from fault_matrix import call, main

WORDS = [
    *("device=cpu", "workers=1", "cache.size=32", "cache.shard_slices=12", "index.folds=2"),
    *("index.cross_folds=2", "index.holdout=0", "embed.backbone=resnet10t", "embed.pretrained=false"),
    *("embed.epochs=1", "embed.batch_size=8", "sequence.epochs=1", "sequence.batch_size=4"),
    *("sequence.projection_dim=16", "sequence.hidden=8", "stack.rounds=5", "stack.min_leaf=2"),
    "evaluate.bootstrap=20",
]


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
