"""Bundles: a finished run as one file that gives the same results, and is refused if it changed."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import cli

import rsna_seq
from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.bundle import INFO, read_bundle
from rsna_seq.tools import bundle


@pytest.fixture(scope="session")
def trained(walked: Path) -> Path:
    """A finished run below ``run``, its data below ``data``, and its bundle ``model.zip``."""
    words = ("bundle", walked / "run", "--out", walked / "model.zip", "--licence", "CC0-1.0", "--json")
    summary = json.loads(cli(*words).stdout)
    assert summary["digest"] == read_bundle(walked / "model.zip").digest
    assert (summary["command"], summary["licence"]) == ("bundle", "CC0-1.0")
    return walked


def test_a_bundle_gives_the_same_results_as_its_run(
    trained: Path, tmp_path: Path, here: Callable[..., str]
) -> None:
    data = trained / "data" / "stage_2_train"
    for name, model in (("a", trained / "run"), ("b", trained / "model.zip")):
        here(data, "--run", model, "--out", tmp_path / name)
    for table in ("slices.csv", "studies.csv"):
        assert (tmp_path / "a" / table).read_bytes() == (tmp_path / "b" / table).read_bytes()


def test_the_same_run_gives_the_same_bytes_and_no_training_data(trained: Path, tmp_path: Path) -> None:
    bundle.run(trained / "run", tmp_path / "again.zip", licence="CC0-1.0", name="model")
    assert (tmp_path / "again.zip").read_bytes() == (trained / "model.zip").read_bytes()
    with zipfile.ZipFile(trained / "model.zip") as archive:
        names, text = archive.namelist(), b"".join(archive.read(n) for n in archive.namelist())
    assert {Path(name).suffix for name in names} <= {
        ".json",
        ".safetensors",
        ".txt",
        ".md",
        ".yaml",
        ".parquet",
        ".npy",
    }
    slices = rsna_seq.read_index(trained / "run")
    names = {*slices["patient"], *slices["study"], str(trained / "data")}
    assert len(names) > 6
    assert not [name for name in names if name.encode() in text]


def test_half_precision_halves_the_weights_and_keeps_the_probabilities(trained: Path, tmp_path: Path) -> None:
    bundle.run(trained / "run", tmp_path / "half.zip", licence="CC0-1.0", half=True)
    assert (tmp_path / "half.zip").stat().st_size < 0.6 * (trained / "model.zip").stat().st_size
    data = trained / "data" / "stage_2_train"
    whole = rsna_seq.predict(data, trained / "model.zip").select(rsna_seq.CLASSES).to_numpy()
    halved = rsna_seq.predict(data, tmp_path / "half.zip").select(rsna_seq.CLASSES).to_numpy()
    assert abs(whole - halved).max() < 5e-3


def test_a_bundle_in_which_anything_changed_is_refused(trained: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(trained / "model.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    weights = next(name for name in files if name.endswith(".safetensors"))
    changes: dict[str, dict[str, bytes]] = {
        "flipped": {**files, weights: files[weights][:-1] + bytes([files[weights][-1] ^ 1])},
        "missing": {name: data for name, data in files.items() if name != weights},
        "more": {**files, "3_embed/hook.py": b"print()"},
    }
    info = json.loads(files[INFO])
    for name in ("../outside.json", "/etc/outside.json", "3_embed/code.py"):
        listed = {**info, "files": {**info["files"], name: "0"}}
        changes[name] = {**files, INFO: json.dumps(listed).encode(), name: b"{}"}
    for i, changed in enumerate(changes.values()):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            for name, data in changed.items():
                archive.writestr(name, data)
        file = tmp_path / f"{i}.zip"
        file.write_bytes(held.getvalue())
        with pytest.raises(IntegrityError, match=str(file)):
            rsna_seq.TrainedRun(file, device="cpu")
    (tmp_path / "cut.zip").write_bytes((trained / "model.zip").read_bytes()[:-200])
    with pytest.raises(IntegrityError, match="not a bundle"):
        rsna_seq.TrainedRun(tmp_path / "cut.zip", device="cpu")


def test_a_bundle_needs_a_licence_and_never_replaces_another_file(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="licence"):
        bundle.run(trained / "run", tmp_path / "a.zip", licence=" ")
    with pytest.raises(UsageError, match=r"\.zip"):
        bundle.run(trained / "run", tmp_path / "a.tar", licence="CC0-1.0")
    (tmp_path / "mine.zip").write_bytes(b"mine")
    shutil.copy(trained / "model.zip", tmp_path / "theirs.zip")
    (tmp_path / "link.zip").symlink_to(tmp_path / "theirs.zip")
    (tmp_path / "dangling.zip").symlink_to(tmp_path / "absent.zip")

    def there() -> dict[str, tuple[int, ...]]:
        found = {path.name: path.lstat() for path in tmp_path.iterdir()}
        return {name: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in found.items()}

    before = there()
    for name in before:
        with pytest.raises(UsageError, match=f"{name}: exists with other content"):
            bundle.run(trained / "run", tmp_path / name, licence="MIT")
    assert there() == before
    again = bundle.run(trained / "run", tmp_path / "theirs.zip", licence="CC0-1.0", name="model")
    assert again == read_bundle(trained / "model.zip")  # the same bundle stays as it is


def test_info_describes_runs_and_bundles(trained: Path) -> None:
    described = json.loads(cli("info", trained / "model.zip", "--json").stdout)
    assert described["kind"] == "bundle"
    assert described["licence"] == "CC0-1.0"
    assert described["phantoms_only"] is False
    assert described["training"]["studies"] == 6
    assert set(described["stages"]) == {"cache", "embed", "sequence", "joint", "stack", "evaluate"}
    text = cli("info", trained / "run").stdout
    assert "embed: 2 networks" in text
    cli("info", trained / "data", code=2)


def test_info_and_bundle_descriptions_need_no_torch(trained: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rsna_seq.tools.bundle import info; "
        f"info(Path({str(trained / 'model.zip')!r})); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
