"""Artefacts are whole or absent, locked while written, and reused only where nothing changed."""

import multiprocessing
from pathlib import Path

import pytest

from rsna_seq.artifacts import Key, Receipt, atomic_path, ensure, locked, read_manifest
from rsna_seq.errors import IntegrityError
from rsna_seq.provenance import source_digest


def _key(**config: object) -> Key:
    return Key("stage", {"size": 1} | config, {"input": "abc"}, "code")


def _build(folder: Path) -> Receipt:
    (folder / "made.txt").write_text("made", encoding="utf-8")
    return Receipt({"files": 1}, {"empty_file": 2})


def test_what_is_made_is_described(tmp_path: Path) -> None:
    manifest = ensure(tmp_path / "out", _key(), _build)
    assert list(manifest.files) == ["made.txt"]
    assert (manifest.counts, manifest.set_aside) == ({"files": 1}, {"empty_file": 2})
    assert read_manifest(tmp_path / "out", verify=True) == manifest


def test_an_equal_key_reuses_and_another_rebuilds_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def build(folder: Path) -> Receipt:
        calls.append(1)
        return _build(folder)

    for key in (_key(), _key(), _key(size=2), _key(size=2)):
        ensure(tmp_path / "out", key, build)
    assert len(calls) == 2
    assert "config size changed" in capsys.readouterr().err


def test_a_missing_file_is_made_again(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build)
    (tmp_path / "out" / "made.txt").unlink()
    ensure(tmp_path / "out", _key(), _build)
    assert (tmp_path / "out" / "made.txt").exists()


def test_a_build_that_dies_leaves_no_manifest_and_what_it_had_is_kept_for_the_next(tmp_path: Path) -> None:
    def die(folder: Path) -> Receipt:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "out", _key(), die)
    with pytest.raises(IntegrityError, match="nothing finished"):
        read_manifest(tmp_path / "out")

    def resume(folder: Path) -> Receipt:
        assert (folder / "half.txt").exists()
        return _build(folder)

    ensure(tmp_path / "out", _key(), resume)


def test_what_another_key_left_half_done_is_swept_away(tmp_path: Path) -> None:
    def die(folder: Path) -> Receipt:
        (folder / "half.txt").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "out", _key(), die)
    assert "half.txt" not in ensure(tmp_path / "out", _key(size=2), _build).files


def test_learned_work_is_kept_unless_a_rebuild_is_asked(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build, learned=True)
    with pytest.raises(IntegrityError, match="--rebuild"):
        ensure(tmp_path / "out", _key(size=2), _build, learned=True)
    assert ensure(tmp_path / "out", _key(size=2), _build, learned=True, rebuild=True).config["size"] == 2


def test_an_artefact_inside_an_artefact_guards_itself(tmp_path: Path) -> None:
    ensure(tmp_path / "out" / "inner", _key(), _build, learned=True)
    ensure(tmp_path / "out", _key(), _build)
    manifest = ensure(tmp_path / "out", _key(size=2), _build)
    assert list(manifest.files) == ["inner/made.txt", "made.txt"]


def _hold(
    folder: Path, ready: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event"
) -> None:
    with locked(folder):
        ready.set()
        done.wait(30)


def test_a_second_run_in_one_folder_is_refused_and_a_dead_ones_lock_is_not_held(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out", ready, done))
    other.start()
    assert ready.wait(30)
    with pytest.raises(IntegrityError, match="another run"):
        ensure(tmp_path / "out", _key(), _build)
    other.kill()
    other.join()
    ensure(tmp_path / "out", _key(), _build)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def half() -> None:
        with atomic_path(tmp_path / "file.txt") as path:
            path.write_text("half", encoding="utf-8")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["{}", '{"stage": "x"}', "not json"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: str) -> None:
    ensure(tmp_path / "out", _key(), _build)
    (tmp_path / "out" / "manifest.json").write_text(change, encoding="utf-8")
    with pytest.raises(IntegrityError, match="not a manifest"):
        read_manifest(tmp_path / "out")


def test_the_source_digest_follows_imports_and_ignores_words() -> None:
    stages = [source_digest(f"rsna_seq.stages.{name}") for name in ("index", "cache", "embed")]
    assert len(set(stages)) == 3
    assert source_digest("rsna_seq.stages.index") == stages[0]
