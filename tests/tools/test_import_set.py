"""``rsna-seq import`` and the stages on what it wrote: index, cache, predict."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from commands import cli
from miniatures import bhsd, cq500, ct_ich_jpeg, ct_ich_nifti, write_dicom

from rsna_seq.config import load_config
from rsna_seq.errors import NothingUsableError, UsageError
from rsna_seq.labels import CLASSES
from rsna_seq.pipeline import predict, run_stage
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.tools import import_set

WORDS = [
    "workers=1",
    "device=cpu",
    "cache.size=64",
    "index.folds=2",
    "index.cross_folds=2",
    "index.holdout=0",
]


def test_the_command_writes_tables_and_says_what_they_hold(tmp_path: Path) -> None:
    done = cli("import", "cq500", cq500(tmp_path / "cq500"), "--out", tmp_path / "set", "--json", "workers=1")
    counts = json.loads(done.stdout)["stages"]["import"]["counts"]
    assert counts == {"images": 14, "studies": 2, "labels of slices": 0, "labels of studies": 2}
    written = {p.name for p in (tmp_path / "set").iterdir() if not p.name.startswith(".")}
    tables = {f"{name}.parquet" for name in ("headers", "labels", "studies", "quarantine")}
    assert written == {"dataset.json", "manifest.json", *tables}
    cli("import", "cq400", tmp_path / "cq500", "--out", tmp_path / "other", code=2)
    assert not (tmp_path / "other").exists()


def test_an_import_is_reused_until_a_file_or_the_labels_change(tmp_path: Path) -> None:
    root, out = ct_ich_jpeg(tmp_path / "jpeg"), tmp_path / "set"
    first = import_set.run("physionet", root, out, load_config(None, ["workers=1"]))
    assert import_set.run("physionet", root, out, load_config(None, ["workers=1"])) == first
    table = root / "hemorrhage_diagnosis.csv"
    table.write_text(
        table.read_text(encoding="utf-8").replace("50,5,0,0,0,0,0,1,0\n", "").rstrip(), encoding="utf-8"
    )
    again = import_set.run("physionet", root, out, load_config(None, ["workers=1"]))
    assert first.counts["labels of slices"] - again.counts["labels of slices"] == 1


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.dcm").write_text("no image", encoding="utf-8")
    with pytest.raises(NothingUsableError, match="no readable CT image"):
        import_set.run("folder", tmp_path / "empty", tmp_path / "set", load_config())
    with pytest.raises(UsageError, match="inside the input"):
        import_set.run("folder", tmp_path / "empty", tmp_path / "empty" / "set", load_config())


SETS: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "cq500": (cq500, "cq500", 2),
    "ct-ich of 1.3": (ct_ich_nifti, "physionet", 2),
    "ct-ich of 1.2": (ct_ich_jpeg, "physionet", 2),
    "bhsd": (bhsd, "bhsd", 2),
}


@pytest.mark.parametrize("name", SETS)
def test_index_cache_and_predict_read_every_set(name: str, tmp_path: Path) -> None:
    make, dataset, studies = SETS[name]
    if "nii" in make.__name__ or dataset == "bhsd":
        pytest.importorskip("nibabel", reason="the extra nifti is not installed")
    out, run = tmp_path / "set", tmp_path / "run"
    cfg = load_config(None, [*WORDS, f"data.root={out}"])
    import_set.run(dataset, make(tmp_path / "data"), out, cfg)
    for stage in ("index", "cache"):
        run_stage(stage, cfg, run)
    slices = pl.read_parquet(run / "1_index" / "slices.parquet")
    assert slices["study"].n_unique() == studies
    assert slices["fold"].null_count() == 0
    cached = PixelCache(run / "2_cache")
    assert len(cached) == studies
    assert cached.slabs["slices"].list.len().sum() == len(slices)
    assert all(volume.hu.max() > 800 for volume in cached), "the skull"
    made = predict([out], [], tmp_path / "answer", cfg)
    assert made.counts["studies"] == studies
    answers = pl.read_csv(tmp_path / "answer" / "slices.csv")
    assert set(answers["slice"]) == set(slices["slice"])
    assert answers.select(pl.col(CLASSES).is_between(0, 1).all()).row(0) == (True,) * 6


def test_two_sets_are_one_run_with_labels_of_both_levels(tmp_path: Path) -> None:
    cfg = load_config(None, WORDS)
    import_set.run("cq500", cq500(tmp_path / "cq500"), tmp_path / "a", cfg)
    import_set.run("physionet", ct_ich_jpeg(tmp_path / "jpeg"), tmp_path / "b", cfg)
    cfg = load_config(None, [*WORDS, f"data.sets=[{tmp_path / 'a'}, {tmp_path / 'b'}]"])
    made = run_stage("index", cfg, tmp_path / "run")
    assert made is not None
    assert made.counts == {"slices": 20, "studies": 4, "studies with a label of the whole study": 2}
    run_stage("cache", cfg, tmp_path / "run")
    weak = pl.read_parquet(tmp_path / "run" / "2_cache" / "study_labels.parquet")
    assert weak.select("study", "any", "subdural").rows() == [("1.2.1", 1, 1), ("1.2.2", 0, 0)]
    slabs = (
        PixelCache(tmp_path / "run" / "2_cache")
        .slabs.group_by("study")
        .agg(pl.col("any").unique().sort())
        .sort("study")
    )
    assert slabs.rows() == [("1.2.1", [None]), ("1.2.2", [0]), ("ct-ich-049", [0, 1]), ("ct-ich-050", [0])]


def test_labels_beside_an_imported_set_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "cq500" / "reads.csv"
    import_set.run("cq500", cq500(tmp_path / "cq500"), tmp_path / "set", load_config(None, WORDS))
    cfg = load_config(None, [*WORDS, f"data.root={tmp_path / 'set'}", f"data.labels={labels}"])
    with pytest.raises(UsageError, match=r"import it again with imports\.labels"):
        run_stage("index", cfg, tmp_path / "run")


def test_a_run_without_labels_of_studies_has_no_table_of_them(tmp_path: Path) -> None:
    write_dicom(tmp_path / "data", "1.2.1", "P", bleeds=True)
    import_set.run("folder", tmp_path / "data", tmp_path / "set", load_config(None, WORDS))
    cfg = load_config(None, [*WORDS, f"data.root={tmp_path / 'set'}"])
    for stage in ("index", "cache"):
        run_stage(stage, cfg, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("study_labels.parquet"))
