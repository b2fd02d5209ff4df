"""The header's quirks: values come back as HU through each pixel layout, ids never meet."""

import io

import numpy as np
import pytest
from pydicom import config, dcmread

from rsna_seq.phantom import draw_patient, draw_scan
from rsna_seq.phantom.writer import Style, draw_style, encode, make_ids, slice_bytes

HU = np.arange(-1000, 3000, 10, dtype=np.int16).reshape(20, 20)


@pytest.mark.parametrize(
    ("layout", "intercept"), [("signed16", -1024), ("unsigned", -1024), ("unsigned-1000", -1000)]
)
def test_stored_values_rescale_to_hu(layout: str, intercept: int) -> None:
    style = Style(layout, False, ("40",), ("80",))
    stored = encode(HU, style, padded=False).astype(int)
    np.testing.assert_array_equal(stored + intercept, HU)


def test_the_twelve_bit_wrap_is_the_set_s() -> None:
    stored = encode(HU, Style("wrap", False, ("40",), ("80",)), padded=False).astype(int)
    assert stored.min() >= 0
    assert stored.max() <= 4095
    mended = stored + 1000
    mended[mended >= 4096] -= 4096
    np.testing.assert_array_equal(mended - 1000, HU)


def test_padding_lies_outside_the_circle_only() -> None:
    stored = encode(HU, Style("signed16", False, ("40",), ("80",)), padded=True)
    assert stored[0, 0] == stored[-1, -1] == -2000
    np.testing.assert_array_equal(stored[10].astype(int) - 1024, HU[10])


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_has_the_competition_s_elements(implicit: bool) -> None:
    rng = np.random.default_rng(0)
    scan = draw_scan(rng, draw_patient(rng))
    style = Style("signed16", implicit, ("00036", "00036"), ("00080", "00080"))
    ids = make_ids(0, 0, 0, len(scan.offsets))
    content = slice_bytes(HU, scan, ids, 2, style)
    with config.disable_value_validation():
        data = dcmread(io.BytesIO(content))
        assert 22 <= len(data) <= 29
        assert data.SOPInstanceUID == ids.images[2]
        assert data.file_meta.TransferSyntaxUID.is_implicit_VR is implicit
        assert data["WindowCenter"].VM == 2
        assert "SliceThickness" not in data
        assert "InstanceNumber" not in data
        np.testing.assert_allclose(
            [float(v) for v in data.ImagePositionPatient], scan.corner(scan.offsets[2], 20), atol=1e-5
        )
    assert len(slice_bytes(HU, scan, ids, 2, style, cut=True)) < len(content)


def test_ids_never_meet_and_carry_no_order() -> None:
    images = [image for study in range(300) for image in make_ids(7, study, study, 60).images]
    assert len(set(images)) == len(images)
    assert all(len(image) == 12 and image.startswith("ID_") for image in images)
    ranks = np.argsort(np.argsort(images[:60]))
    assert abs(np.corrcoef(ranks, np.arange(60))[0, 1]) < 0.4
    assert set(images).isdisjoint(make_ids(8, 0, 0, 60).images)


def test_rare_layouts_come_even_in_small_sets() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        offset = float(rng.random())
        styles = [draw_style(rng, i, offset) for i in range(60)]
        assert any(s.layout == "wrap" for s in styles)
        assert any(s.implicit for s in styles)
        assert any(len(s.window) == 2 for s in styles)
        assert sum(s.layout == "signed16" for s in styles) > 48
