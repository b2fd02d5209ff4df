"""Write studies as DICOM files in the format of the competition, with its elements, ids and irregularities.

The header has the 22 elements of the RSNA 2019 files, with ids that are not UIDs (``ID_728dd7d7``). Pixel
layouts (BitsStored, PixelRepresentation, RescaleIntercept): (16, 1, -1024) for most, then (12, 0, -1024),
(12, 0, -1000), (12, 1, 0), and the 12-bit wrap, whose values below 0 HU come out as 4096 more.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, config, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rsna_seq.phantom.prevalence import spread
from rsna_seq.phantom.scanner import Scan

PADDING = -2000
"""Stored value outside the circular field of view."""
CUT_SHARE = 153710 / 524288
"""Fraction of the pixels that a truncated file contains, as in the truncated file of the competition."""
_LAYOUTS = (
    (0.040, "wrap"),
    (0.075, "unsigned"),
    (0.085, "unsigned-1000"),
    (0.095, "signed12"),
    (1.0, "signed16"),
)
_WINDOWS = (("30", "80"), ("40", "80"), ("36", "80"), ("40", "150"), ("50", "100"))


@dataclass(frozen=True)
class Style:
    """Format of the files of one study."""

    layout: str
    implicit: bool
    window: tuple[str, ...]
    width: tuple[str, ...]


@dataclass(frozen=True)
class Ids:
    """The identifiers of one study's files."""

    patient: str
    study: str
    series: str
    images: tuple[str, ...]
    """One per slice, in no order."""


def draw_style(rng: np.random.Generator, index: int, offset: float) -> Style:
    """Sample a study's style; rare layouts are spread evenly over the indices of a set."""
    at = spread(index, offset)
    layout = next(name for edge, name in _LAYOUTS if at < edge)
    window, width = _WINDOWS[int(rng.integers(len(_WINDOWS)))]
    twice = spread(index, offset + 0.37) < 0.15
    values = (window.zfill(5), width.zfill(5)) if twice else (window, width)
    count = 2 if twice else 1
    return Style(layout, spread(index, offset + 0.71) < 0.2, (values[0],) * count, (values[1],) * count)


def make_ids(seed: int, patient: int, study: int, slices: int) -> Ids:
    """Make identifiers that are unique within a seed and in no order.

    Args:
        seed: Seed of the set.
        patient: Index of the patient in the set.
        study: Index of the study in the set.
        slices: Number of slices, at most 64.
    """
    images = tuple(f"ID_{_scramble(seed, 3, study * 64 + i, 36):09x}" for i in range(slices))
    return Ids(
        patient=f"ID_{_scramble(seed, 0, patient, 32):08x}",
        study=f"ID_{_scramble(seed, 1, study, 40):010x}",
        series=f"ID_{_scramble(seed, 2, study, 40):010x}",
        images=images,
    )


def _scramble(seed: int, what: int, number: int, bits: int) -> int:
    """A permutation of the numbers with a given number of bits, selected by the seed."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{what}".encode()).digest()[:16], "little")
    mask = (1 << bits) - 1
    x = (number ^ key) & mask
    for turn in range(4):
        x = (x * ((key >> (9 * turn)) | 1)) & mask
        x ^= x >> (bits // 2 - turn)
    return x


def encode(hu: NDArray[np.int16], style: Style, *, padded: bool) -> NDArray[np.uint16] | NDArray[np.int16]:
    """Stored values of a slice in HU, (row, column)."""
    value = hu.astype(np.int32)
    if style.layout == "wrap":
        return (np.clip(value, -1000, 3095) % 4096).astype(np.uint16)
    if style.layout in {"unsigned", "unsigned-1000"}:
        return np.clip(value - _intercept(style), 0, 4095).astype(np.uint16)
    if style.layout == "signed12":
        return np.clip(value, -2048, 2047).astype(np.int16)
    value = value + 1024
    if padded:
        side = np.arange(len(hu)) - (len(hu) - 1) / 2
        value[np.hypot(side[:, None], side[None, :]) > len(hu) / 2] = PADDING
    return value.astype(np.int16)


def _intercept(style: Style) -> int:
    """RescaleIntercept of a layout."""
    return {"wrap": 0, "signed12": 0, "unsigned": -1024, "unsigned-1000": -1000, "signed16": -1024}[
        style.layout
    ]


def slice_bytes(
    hu: NDArray[np.int16], scan: Scan, ids: Ids, i: int, style: Style, *, cut: bool = False
) -> bytes:
    """One slice as the bytes of its DICOM file.

    Args:
        hu: HU (row, column).
        scan: The acquisition.
        ids: The study's identifiers.
        i: Index of the slice in the acquisition.
        style: The style of the study.
        cut: Truncate the file within the pixels.
    """
    pixels = encode(hu, style, padded=scan.padded)
    with config.disable_value_validation():
        data = slice_header(scan, ids, i, style, len(hu))
        data.add_new(0x7FE00010, "OW", pixels.astype("<u2" if pixels.dtype == np.uint16 else "<i2").tobytes())
        buffer = io.BytesIO()
        dcmwrite(buffer, data, enforce_file_format=True)
    whole = buffer.getvalue()
    kept = int(pixels.nbytes * CUT_SHARE) // 2 * 2
    return whole[: len(whole) - pixels.nbytes + kept] if cut else whole


def slice_header(scan: Scan, ids: Ids, i: int, style: Style, matrix: int) -> Dataset:
    """The elements of a slice before the pixels; the competition's ids need ``disable_value_validation``.

    Args:
        scan: The acquisition.
        ids: The study's identifiers.
        i: Index of the slice in the acquisition.
        style: The style of the study.
        matrix: Rows and columns.
    """
    data = Dataset()
    data.file_meta = _meta(ids.images[i], style)
    data.SOPInstanceUID, data.Modality, data.PatientID = UID(ids.images[i]), "CT", ids.patient
    data.StudyInstanceUID, data.SeriesInstanceUID = UID(ids.study), UID(ids.series)
    data.StudyID = ""
    data.ImagePositionPatient = [f"{v:.6f}" for v in scan.corner(scan.offsets[i], matrix)]
    data.ImageOrientationPatient = [f"{v:.6f}" for v in (1.0, 0.0, 0.0, *scan.columns)]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = matrix
    data.PixelSpacing = [f"{scan.field_of_view / matrix:.6f}"] * 2
    bits = 16 if style.layout == "signed16" else 12
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelRepresentation = int(style.layout.startswith("signed"))
    data.WindowCenter, data.WindowWidth = list(style.window), list(style.width)
    data.RescaleIntercept, data.RescaleSlope = str(_intercept(style)), "1"
    return data


def _meta(image: str, style: Style) -> FileMetaDataset:
    """The file's meta information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(image)
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if style.implicit else ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.ImplementationVersionName = "RSNA_SEQ_PHANTOM"
    return meta
