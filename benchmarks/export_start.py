"""Export an embedder's weights in half precision as the weights shipped with the package.

Usage: python benchmarks/export_start.py runs/start/3_embed/fold0/last.safetensors
"""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from rsna_seq.nets.pretrained import PHANTOM_FILE


def main(source: Path) -> None:
    """Convert the tensors of a safetensors file to half precision and write the shipped file."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in load_file(source).items()}
    save_file(weights, PHANTOM_FILE)
    print(f"{PHANTOM_FILE}: {PHANTOM_FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
