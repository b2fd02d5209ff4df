"""Make the pictures of reports in docs/assets, from phantoms only: ``make pictures``.

Phantoms are written and predicted by the model in the package; headless Chromium draws the pages.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

ASSETS = ROOT / "docs" / "assets"
_PHANTOMS = ("--config", "demo", "seed=77", "synth.studies=6", "synth.test_studies=0", "synth.rare_share=0.1")
_READY = "document.getElementById('viewer').dataset.ready === 'true'"


def main() -> None:
    """Write worklist.jpg, study.jpg and viewer.jpg."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _rsna_seq("synth", *_PHANTOMS, "--out", folder / "data")
        studies = folder / "data" / "stage_2_train"
        _rsna_seq("predict", studies, "--out", folder / "out", "predict.prevalence=0.1")
        with Browser(folder, width=1120) as browser:
            browser.open(folder / "out" / "report.html")
            browser.picture(ASSETS / "worklist.jpg")
            browser.open(folder / "out" / "studies" / "0001.html")
            browser.wait(_READY)
            top, end = (
                browser.run(f"document.querySelector('{part}').getBoundingClientRect().{side} + scrollY")
                for part, side in ((".key-image", "bottom"), ("#viewer", "top"))
            )
            browser.picture(ASSETS / "study.jpg", height=round(top))
            high = browser.run("document.getElementById('viewer').getBoundingClientRect().height")
            browser.picture(ASSETS / "viewer.jpg", top=round(end), height=round(high) + 24)


def _rsna_seq(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "rsna_seq", *map(str, words)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
