"""The pixels of one DICOM file, in Hounsfield units.

Stored values -> the 12-bit wrap mended -> rescale (DICOM PS3.3 C.11.1.1.2) -> air where there is no patient.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.volume import AIR_HU
from rsna_seq.reasons import Reason, SetAsideError

_WRAP = 4096
_WRAP_INTERCEPT = -100
"""12-bit unsigned slices with an intercept above this hold HU + 1000 modulo 4096 (``wrap_mended``)."""
_HIGHEST = 32767


def read_hu(path: Path, header: Mapping[str, Any]) -> NDArray[np.int16]:
    """Read the pixels of a slice in Hounsfield units.

    Args:
        path: The file.
        header: A row of SLICES.

    Returns:
        (rows, columns) int16 HU; padding and everything below -1024 is air.

    Raises:
        SetAsideError: The pixels are cut short or cannot be decoded.
    """
    stored = _stored(path, header)
    return to_hu(
        stored,
        slope=header["slope"],
        intercept=header["intercept"],
        bits_stored=header["bits_stored"],
        signed=header["signed"],
        padding=header["padding"],
    )


def to_hu(
    stored: NDArray[np.integer],
    *,
    slope: float,
    intercept: float,
    bits_stored: int = 16,
    signed: bool = True,
    padding: int | None = None,
) -> NDArray[np.int16]:
    """Stored values to Hounsfield units (DICOM PS3.3 C.11.1.1.2), air where there is no patient.

    Args:
        stored: Stored values, any shape.
        slope: RescaleSlope.
        intercept: RescaleIntercept, in HU.
        bits_stored: BitsStored.
        signed: PixelRepresentation is 1.
        padding: PixelPaddingValue; such pixels are air.
    """
    if is_wrapped(bits_stored, signed=signed, intercept=intercept):
        stored, intercept = wrap_mended(stored), -1000.0
    if slope == 1 and intercept == int(intercept):
        hu = stored.astype(np.int32) + int(intercept)
    else:
        hu = np.rint(stored * slope + intercept).astype(np.int32)
    if padding is not None:
        hu[stored == padding] = AIR_HU
    return np.clip(hu, AIR_HU, _HIGHEST).astype(np.int16)


def is_wrapped(bits_stored: int, *, signed: bool, intercept: float) -> bool:
    """Whether a header is of the kind whose 12-bit values wrapped round."""
    return bits_stored == 12 and not signed and intercept > _WRAP_INTERCEPT


def wrap_mended(stored: NDArray[np.integer]) -> NDArray[np.int32]:
    """Undo the wrap of 12-bit values: +1000, minus 4096 from 4096 on; the intercept is then -1000."""
    shifted = stored.astype(np.int32) + 1000
    return np.where(shifted >= _WRAP, shifted - _WRAP, shifted)


def _stored(path: Path, header: Mapping[str, Any]) -> NDArray[np.integer]:
    """Stored values, (rows, columns): one read where they lie open, else decoded."""
    offset, rows, columns = header["pixel_offset"], header["rows"], header["columns"]
    try:
        if offset is None:
            return _decoded(path, header["frame"])
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            raw = file.read(2 * rows * columns)
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    if len(raw) < 2 * rows * columns:
        raise SetAsideError(Reason.PIXELS_TRUNCATED, f"{len(raw):,} of {2 * rows * columns:,} bytes")
    order = ">" if header["transfer_syntax"] == ExplicitVRBigEndian else "<"
    values = np.frombuffer(raw, dtype=f"{order}{'i' if header['signed'] else 'u'}2").reshape(rows, columns)
    bits = header["bits_stored"]
    if bits == 16:
        return values
    return _low_bits(values, bits, signed=header["signed"])


def _low_bits(values: NDArray[np.integer], bits: int, *, signed: bool) -> NDArray[np.integer]:
    """Keep BitsStored bits; what stands above them is not part of the value (PS3.5 8.1.1)."""
    shift = 16 - bits
    kind = np.int16 if signed else np.uint16
    kept: NDArray[np.integer] = (values.astype(kind) << shift) >> shift
    return kept


def _decoded(path: Path, frame: int) -> NDArray[np.integer]:
    """Compressed or deflated pixels of one frame, by pydicom's decoders."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            pixels: NDArray[np.integer] = dataset.pixel_array
    except RuntimeError as error:
        if "missing dependencies" in str(error) or "plugins are missing" in str(error):
            raise EnvironmentFaultError(f"{path.name}: {error}") from error
        raise SetAsideError(Reason.PIXELS_UNDECODABLE, type(error).__name__) from error
    except Exception as error:  # a damaged codestream raises anything
        raise SetAsideError(Reason.PIXELS_UNDECODABLE, type(error).__name__) from error
    return pixels[frame] if pixels.ndim == 3 else pixels
