"""BHSD in its format: masks become labels of slices, patients keep their names of the RSNA set."""

from pathlib import Path

import numpy as np
import pytest
from importing import imported, labels_of
from miniatures import bhsd
from niftis import affine_of, write_nifti

from rsna_seq.errors import UsageError

pytest.importorskip("nibabel", reason="the extra nifti is not installed")
FIRST, SECOND = "ID_f91d6a7cd2", "ID_0a3f4b5c6d"


def test_masks_become_labels_of_slices(tmp_path: Path) -> None:
    made = imported("bhsd", bhsd(tmp_path / "bhsd"))
    clear = {f"{study}#{k}": "000000" for study in (FIRST, SECOND) for k in range(1, 6)}
    assert labels_of(made) == clear | {f"{FIRST}#3": "100001", f"{FIRST}#4": "000101"}
    assert made.headers["file"].n_unique() == 2, "masks are no images"


def test_patients_have_their_names_of_rsna_and_the_set_is_not_external(tmp_path: Path) -> None:
    made = imported("bhsd", bhsd(tmp_path / "bhsd"))
    assert made.studies.select("study", "patient").rows() == [(SECOND, "ID_1fc88e28"), (FIRST, "ID_0b10cbee")]
    assert (made.info.external, made.info.derived_from) == (False, "rsna2019")


def test_volumes_without_a_usable_mask_are_named(tmp_path: Path) -> None:
    root = bhsd(tmp_path / "bhsd")
    masks = root / "label_192" / "ground truths"
    first, second = (next(masks.glob(f"*{study}*")) for study in (FIRST, SECOND))
    second.unlink()
    write_nifti(first, [np.zeros((64, 64))] * 4, affine_of((0, 0, 0), (0, 0, 5)), np.uint8)
    made = imported("bhsd", root)
    assert labels_of(made) == {}
    assert made.quarantine.select("reason", "detail").rows() == [
        ("bad_dimensions", "the mask has shape (64, 64, 4), the volume (64, 64, 5)")
    ]
    assert "1 volumes have no mask and so no labels" in made.info.notes


def test_a_mask_with_an_unknown_value_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    root = bhsd(tmp_path / "bhsd")
    mask = next((root / "label_192" / "ground truths").glob(f"*{FIRST}*"))
    write_nifti(mask, [np.full((64, 64), 7)] * 5, affine_of((0, 0, 0), (0, 0, 5)), np.uint8)
    with pytest.raises(UsageError, match=r"its mask has the values \[7\]"):
        imported("bhsd", root)
    image = next((root / "label_192" / "images").glob("*"))
    image.rename(image.with_name("case_1.nii.gz"))
    with pytest.raises(UsageError, match="not named PATIENT_STUDY"):
        imported("bhsd", root)
