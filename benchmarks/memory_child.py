"""Run one stage in this process and print the memory before it and its peak, in MB, as JSON.

python benchmarks/memory_child.py STAGE FILES INDEX OUT
"""

import json
import sys
from pathlib import Path

import cv2
from harness import peak_mb

from rsna_seq.config import CacheConfig, DataConfig, IndexConfig
from rsna_seq.context import Context
from rsna_seq.stages import cache, index
from rsna_seq.store.run_folder import RunFolder


def main(stage: str, files: Path, run: Path) -> None:
    """Run a stage and print its memory."""
    cv2.setNumThreads(1)
    base = peak_mb()
    if stage == "index":
        index.run(IndexConfig(), Context(data=DataConfig(root=files)), RunFolder(run))
    else:
        cache.run(CacheConfig(), Context(data=DataConfig(root=files)), RunFolder(run))
    print(json.dumps({"base": base, "peak": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:4]))
