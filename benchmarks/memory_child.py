"""One stage in a process of its own; prints the memory before and at its peak, in MB, as JSON.

python benchmarks/memory_child.py STAGE FILES INDEX OUT
"""

import json
import sys
from pathlib import Path

import cv2
from harness import peak_mb

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.stages import cache, index


def main(stage: str, files: Path, index_: Path, out: Path) -> None:
    """Run a stage and print what it took."""
    cv2.setNumThreads(1)
    base = peak_mb()
    if stage == "index":
        index.run(IndexConfig(), DataConfig(root=files), out)
    else:
        cache.run(CacheConfig(), index_, files, out)
    print(json.dumps({"base": base, "peak": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
