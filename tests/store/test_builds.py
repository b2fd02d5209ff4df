"""An artefact is complete or absent, locked while it is written, and reused only where nothing changed."""

import json
import multiprocessing
from pathlib import Path

import pytest

from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.artifacts import BuildSummary, Key, open_artifact, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import locked, write_text
from rsna_seq.store.provenance import source_digest


def _key(**config: object) -> Key:
    return Key("stage", {"size": 1} | config, {"input": "abc"}, "code")


def _build(folder: Path) -> BuildSummary:
    write_text(folder / "made.txt", "made")
    return BuildSummary({"files": 1}, {"empty_file": 2})


def test_what_is_made_is_described(tmp_path: Path) -> None:
    manifest = ensure(tmp_path / "out", _key(), _build)
    assert list(manifest.files) == ["made.txt"]
    assert (manifest.counts, manifest.excluded) == ({"files": 1}, {"empty_file": 2})
    assert read_manifest(tmp_path / "out", verify=True) == manifest


def test_an_equal_key_reuses_and_another_rebuilds_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def build(folder: Path) -> BuildSummary:
        calls.append(1)
        return _build(folder)

    for key in (_key(), _key(), _key(size=2), _key(size=2)):
        ensure(tmp_path / "out", key, build)
    assert len(calls) == 2
    assert "config size changed" in capsys.readouterr().err


def test_a_missing_file_is_rebuilt(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build)
    (tmp_path / "out" / "made.txt").unlink()
    ensure(tmp_path / "out", _key(), _build)
    assert (tmp_path / "out" / "made.txt").exists()


def test_a_build_that_dies_leaves_no_manifest_and_what_it_had_is_kept_for_the_next(tmp_path: Path) -> None:
    def die(folder: Path) -> BuildSummary:
        write_text(folder / "half.txt", "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "out", _key(), die)
    with pytest.raises(IntegrityError, match="no complete artefact"):
        read_manifest(tmp_path / "out")

    def resume(folder: Path) -> BuildSummary:
        assert (folder / "half.txt").exists()
        return _build(folder)

    ensure(tmp_path / "out", _key(), resume)


def test_partial_files_of_another_key_are_removed(tmp_path: Path) -> None:
    def die(folder: Path) -> BuildSummary:
        write_text(folder / "half.txt", "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(tmp_path / "out", _key(), die)
    assert "half.txt" not in ensure(tmp_path / "out", _key(size=2), _build).files


def test_learned_artefacts_are_kept_without_rebuild(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build, learned=True)
    with pytest.raises(IntegrityError, match="--rebuild"):
        ensure(tmp_path / "out", _key(size=2), _build, learned=True)
    assert ensure(tmp_path / "out", _key(size=2), _build, learned=True, rebuild=True).config["size"] == 2


def test_an_artefact_within_an_artefact_is_not_part_of_it(tmp_path: Path) -> None:
    other = Key("other", {}, {}, "")
    ensure(tmp_path / "out" / "inner", _key(), _build, learned=True)  # as a fold of a stage
    assert list(ensure(tmp_path / "out", _key(), _build).files) == ["made.txt"]
    assert list(ensure(tmp_path / "out", _key(size=2), _build).files) == ["made.txt"]
    assert (tmp_path / "out" / "inner" / "made.txt").exists()
    ensure(tmp_path / "third" / "inner", other, _build)
    with pytest.raises(UsageError, match="not empty"):
        ensure(tmp_path / "third", _key(), _build)


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


@pytest.mark.parametrize("change", ["{}", '{"stage": "stage"}', "not json", "[" * 100_000])
def test_a_damaged_manifest_is_refused_and_nothing_is_deleted(tmp_path: Path, change: str) -> None:
    ensure(tmp_path / "out", _key(), _build)
    (tmp_path / "out" / "manifest.json").write_text(change, encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
        read_manifest(tmp_path / "out")
    with pytest.raises(IntegrityError, match=r"(?i)move or delete"):
        ensure(tmp_path / "out", _key(), _build, rebuild=True)
    assert (tmp_path / "out" / "made.txt").read_text(encoding="utf-8") == "made"


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build)
    path = tmp_path / "out" / "manifest.json"
    whole = path.read_bytes()
    silent = []
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            if read_manifest(tmp_path / "out").model_dump() != json.loads(whole):
                silent.append(at)
        except IntegrityError:
            continue
    assert silent == []


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_noticed_when_it_is_used_and_built_again(tmp_path: Path, damage: str) -> None:
    ensure(tmp_path / "out", _key(), _build)
    path = tmp_path / "out" / "made.txt"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"lade" if damage == "flip" else b"mad")
    with pytest.raises(IntegrityError, match=r"made\.txt: (damaged|missing)"):
        open_artifact(tmp_path / "out").file("made.txt")
    ensure(tmp_path / "out", _key(), _build)
    assert open_artifact(tmp_path / "out").file("made.txt").read_text(encoding="utf-8") == "made"


def test_a_damaged_learned_artefact_is_kept_for_its_owner_to_restore(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build, learned=True)
    (tmp_path / "out" / "made.txt").write_text("lost", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"made\.txt: damaged.*--rebuild"):
        ensure(tmp_path / "out", _key(), _build, learned=True)
    assert (tmp_path / "out" / "made.txt").read_text(encoding="utf-8") == "lost"


def test_a_name_that_the_manifest_does_not_hold_is_not_opened(tmp_path: Path) -> None:
    ensure(tmp_path / "out", _key(), _build)
    (tmp_path / "out" / "other.txt").write_text("planted", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"other\.txt"):
        open_artifact(tmp_path / "out").file("other.txt")


def test_the_source_digest_follows_imports_and_ignores_words() -> None:
    stages = [source_digest(f"rsna_seq.stages.{name}") for name in ("index", "cache", "embed")]
    assert len(set(stages)) == 3
    assert source_digest("rsna_seq.stages.index") == stages[0]
