"""``studies.json``: the shipped schema is that of the classes, and the file repeats the tables."""

import json
from pathlib import Path

import polars as pl
import pytest
from dicoms import write_slice
from objects import PHANTOM, predicted, write_frames, write_whole

import rsna_seq.clinic
from rsna_seq.clinic.results import Results, read_results, schema_text
from rsna_seq.errors import IntegrityError
from rsna_seq.labels import CLASSES
from rsna_seq.models import PHANTOMS_ONLY

SCHEMA = Path(rsna_seq.clinic.__file__).with_name("studies.schema.json")


def test_the_shipped_schema_is_that_of_the_classes() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "run: python -c 'from rsna_seq.clinic.results import schema_text; print(schema_text(), end=\"\")' "
        f"> {SCHEMA.name}"
    )
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    described = [*schema["properties"].items(), *schema["$defs"]["Study"]["properties"].items()]
    assert [
        name for name, about in described if name not in {"schema_version", "findings"} and not about
    ] == []


def test_results_repeat_the_slices_with_the_highest_probabilities(tmp_path: Path) -> None:
    write_whole(tmp_path / "in")
    write_frames(tmp_path / "in")
    write_slice(tmp_path / "in", "ID_a", z=1.0)
    made = predicted(tmp_path / "in")
    assert Results.model_validate_json(made.results.model_dump_json()) == made.results
    assert [study.study for study in made.results.studies] == made.slices["study"].unique(
        maintain_order=True
    ).to_list()
    for study in made.results.studies:
        rows = made.slices.filter(pl.col("study") == study.study)
        assert study.slices == len(rows)
        assert list(study.findings) == list(CLASSES)
        for name, found in study.findings.items():
            best = rows.row(rows[name].arg_max(), named=True)
            assert found.probability == round(best[name], 8)
            assert found.above == (found.probability > 0.5)
            assert found.key_image.model_dump() == {
                **{k: best[k] for k in ("slice", "series", "file", "z_mm")},
                "number": None,  # the index of these files is not passed on
            }
    replaced = {study.study: set(study.replaced_uids) for study in made.results.studies}
    assert replaced["ID_s1"] == {"ID_s1", "ID_s1_series", "ID_a"}
    assert replaced["1.2.826.0.7.1"] == replaced["1.2.826.0.8.1"] == set()


def test_notices_follow_the_models_and_timing_is_not_content(tmp_path: Path) -> None:
    write_whole(tmp_path)
    made = predicted(tmp_path).results
    assert made.notices[0] == PHANTOMS_ONLY
    other = predicted(tmp_path, model=PHANTOM.model_copy(update={"phantoms_only": False})).results
    assert PHANTOMS_ONLY not in other.notices
    assert len(other.notices) == 1
    study = made.studies[0]
    slower = study.model_copy(update={"seconds": 9.0})
    assert made.content(study) == made.content(slower)
    assert made.content(study) != other.content(study)


def test_the_folder_of_a_study_is_not_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "a")
    write_whole(tmp_path / "b" / "deep")
    one, other = (predicted(tmp_path / name).results for name in ("a", "b"))
    assert one.studies != other.studies
    assert one.digest == other.digest


def test_a_file_that_does_not_follow_the_schema_is_refused(tmp_path: Path) -> None:
    for text in (None, "{}", '{"schema_version": 2}', "["):
        if text is not None:
            (tmp_path / "studies.json").write_text(text, encoding="utf-8")
        with pytest.raises(IntegrityError, match=r"studies\.json"):
            read_results(tmp_path)
