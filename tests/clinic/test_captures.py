"""Secondary Captures: the key slice in two windows, with the notices."""

from pathlib import Path

import numpy as np
import pytest
from objects import predicted, read, write_whole

from rsna_seq.clinic.captures import drawn

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'rsna-seq[clinic]'")


def test_each_key_slice_is_one_image_that_names_its_source(tmp_path: Path) -> None:
    write_whole(tmp_path / "in")
    made = predicted(tmp_path / "in")
    (study,) = made.results.studies
    (written,) = made.write(tmp_path / "out").values()
    shown = {found.key_image.slice for found in study.shown().values()}
    files = [name for name in written.files if "capture" in name]
    sources = set()
    for name in files:
        image = read(tmp_path / "out" / name)
        pixels = image.pixel_array
        assert pixels.shape[1:] == (1024, 3)
        assert pixels[:512, :512].std() > 0
        red, green, blue = pixels[512:].reshape(-1, 3).astype(int).T
        assert ((red > 150) & (red > 2 * green) & (red > 2 * blue)).any(), "the notices are red"
        assert image.ImageComments.startswith(made.results.notices[0])
        assert image.PatientOrientation == ["L", "P"]
        sources.add(image.SourceImageSequence[0].ReferencedSOPInstanceUID)
    assert len(files) == len(shown) == len(sources)
    assert sources == shown


def test_slices_keep_their_proportions() -> None:
    hu = np.full((100, 100), 40, dtype=np.int16)
    picture = drawn(hu, (2.0, 1.0), [("text", (255, 255, 255))])
    lit = picture[:512, :512, 0] > 0
    assert lit.any(axis=1).sum() == 512
    assert lit.any(axis=0).sum() == 256
    assert (picture[:512] == picture[:512, :, :1]).all(), "the slice is grey"


def test_letters_mark_the_sides_of_the_patient() -> None:
    air = np.full((100, 100), -1000, dtype=np.int16)
    marked = drawn(air, (1.0, 1.0), [], ("R", "A"))[:512, :, 0] > 0
    rows, columns = marked.any(axis=1).nonzero()[0], marked[:, :512].any(axis=0).nonzero()[0]
    assert {*rows} <= {*range(40), *range(230, 270)}
    assert {*columns} <= {*range(40), *range(250, 290)}
    assert marked[230:270, :40].any()
    assert marked[:40, 250:290].any()
    assert (marked[:, :512] == marked[:, 512:]).all(), "both windows have them"
