"""Make the modules in ``benchmarks/`` importable: they are scripts outside the package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
