"""The pixels of one slice, in Hounsfield units.

Stored values -> the 12-bit wrap mended -> rescale (DICOM PS3.3 C.11.1.1.2) -> air where there is no patient.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from rsna_seq.imaging.archives import MARK
from rsna_seq.imaging.decoder import shared_decoder
from rsna_seq.imaging.elements import deflated_data
from rsna_seq.imaging.sources import must_be, open_file
from rsna_seq.imaging.volume import AIR_HU
from rsna_seq.reasons import Reason, SetAsideError

_WRAP = 4096
_WRAP_INTERCEPT = -100
"""12-bit unsigned slices with an intercept above this hold HU + 1000 modulo 4096 (``wrap_mended``)."""
_HIGHEST = 32767
_DENSEST_HU = 4095
"""Metal saturates a scanner of 12 bits here; wider ones go higher, but in few pixels."""


def read_hu(path: Path, header: Mapping[str, Any]) -> NDArray[np.int16]:
    """Read the pixels of a slice in Hounsfield units.

    Args:
        path: The file, or a member of an archive.
        header: A row of SLICES.

    Returns:
        (rows, columns) int16 HU; padding and everything below -1024 is air.

    Raises:
        SetAsideError: The pixels are cut short, cannot be decoded, or are no HU; or the file changed since
            it was indexed.
    """
    stored = _stored(os.fspath(path), header)
    hu = to_hu(
        stored,
        slope=header["slope"],
        intercept=header["intercept"],
        bits_stored=header["bits_stored"],
        signed=header["signed"],
        padding=header["padding"],
    )
    _must_be_plausible(hu)
    return hu


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
    if slope == 1 and intercept == int(intercept) and _holds(stored.dtype, AIR_HU - int(intercept)):
        return _shifted(stored, int(intercept), padding)
    hu = np.rint(stored * slope + intercept)
    if padding is not None:
        hu[stored == padding] = AIR_HU
    clipped: NDArray[np.int16] = np.clip(hu, AIR_HU, _HIGHEST).astype(np.int16)
    return clipped


def _holds(kind: np.dtype[Any], value: int) -> bool:
    """Whether a kind of integer has a value."""
    return kind.kind in "iu" and np.iinfo(kind).min <= value <= np.iinfo(kind).max


def _shifted(stored: NDArray[np.integer], intercept: int, padding: int | None) -> NDArray[np.int16]:
    """Stored values plus an intercept, in 16 bits all the way: clipped first, so that no sum overflows."""
    air = AIR_HU - intercept
    bounded = np.clip(stored, air, min(_HIGHEST - intercept, int(np.iinfo(stored.dtype).max)))
    if padding is not None and padding > air:  # else it is air already
        bounded[stored == padding] = air
    hu: NDArray[np.int16] = (bounded.astype(np.uint16) + np.uint16(intercept % 65536)).view(np.int16)
    return hu


def is_wrapped(bits_stored: int, *, signed: bool, intercept: float) -> bool:
    """Whether a header is of the kind whose 12-bit values wrapped round."""
    return bits_stored == 12 and not signed and intercept > _WRAP_INTERCEPT


def wrap_mended(stored: NDArray[np.integer]) -> NDArray[np.int32]:
    """Undo the wrap of 12-bit values: +1000, minus 4096 from 4096 on; the intercept is then -1000."""
    shifted = stored.astype(np.int32) + 1000
    return np.where(shifted >= _WRAP, shifted - _WRAP, shifted)


def pixel_hash(hu: NDArray[np.int16]) -> str | None:
    """A hash by which the same image is found again: of every eighth pixel of every eighth row.

    Noise makes each real slice its own; an image of one value, which any scanner makes, has none.

    Args:
        hu: (rows, columns) HU.
    """
    some = np.ascontiguousarray(hu[::8, ::8])
    return None if some.min() == some.max() else hashlib.blake2b(some.tobytes(), digest_size=8).hexdigest()


def _must_be_plausible(hu: NDArray[np.int16]) -> None:
    """Refuse pixels that no head in air can have: much of it denser than metal."""
    some = hu[::8, ::8]
    dense = float((some > _DENSEST_HU).mean())
    if dense > 0.25:
        raise SetAsideError(Reason.IMPLAUSIBLE_HU, f"{dense:.0%} of the pixels are above {_DENSEST_HU:,} HU")


def _stored(path: str, header: Mapping[str, Any]) -> NDArray[np.integer]:
    """Stored values, (rows, columns): one read where they lie open, else decoded."""
    shape = (int(header["rows"]), int(header["columns"]))
    count, syntax = 2 * shape[0] * shape[1], header["transfer_syntax"]
    if MARK not in path:
        must_be(path, header["file_size"], header["file_mtime_ns"])
    if header["pixel_offset"] is None:
        return shared_decoder().decode(path, header["frame"], shape)
    try:
        raw = _raw(path, header["pixel_offset"], count, deflated=syntax == DeflatedExplicitVRLittleEndian)
    except OSError as error:
        raise SetAsideError(Reason.UNREADABLE_FILE, type(error).__name__) from error
    if len(raw) < count:
        raise SetAsideError(Reason.PIXELS_TRUNCATED, f"{len(raw):,} of {count:,} bytes")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    values = np.frombuffer(raw, dtype=f"{order}{'i' if header['signed'] else 'u'}2").reshape(shape)
    bits = header["bits_stored"]
    return values if bits == 16 else _low_bits(values, bits, signed=header["signed"])


def _raw(path: str, offset: int, count: int, *, deflated: bool) -> bytes:
    """Bytes of uncompressed pixels."""
    with open_file(path) as file:
        if deflated:
            return deflated_data(file)[offset : offset + count]
        file.seek(offset)
        return file.read(count)


def _low_bits(values: NDArray[np.integer], bits: int, *, signed: bool) -> NDArray[np.integer]:
    """Keep BitsStored bits; what stands above them is not part of the value (PS3.5 8.1.1)."""
    shift = 16 - bits
    kind = np.int16 if signed else np.uint16
    kept: NDArray[np.integer] = (values.astype(kind) << shift) >> shift
    return kept
