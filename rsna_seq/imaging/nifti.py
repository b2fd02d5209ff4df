"""NIfTI volumes of CT: every slice as a header like that of a DICOM slice, and its pixels in HU.

1. nibabel reads the header and the affine, which maps voxels to millimetres (right, anterior, superior).
2. The axis that points along the body is the slice axis. The two others are transposed and flipped so that
   an image is displayed as in DICOM: right of the patient on the left, anterior at the top.
3. Position and orientation of each slice in DICOM's coordinates (left, posterior, superior). A tilted gantry
   shears the affine: positions are then projected on the slice normal, as for DICOM.

A NIfTI file does not say that its values are HU. CT contains air, so a volume without values near -1000 is
refused (``not_hu``): such are masks, windowed images, and values with an offset.
"""

import functools
import io
import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.imaging.headers.fields import COLUMNS, SPACING_MM, Header
from rsna_seq.imaging.whole_file import read_whole
from rsna_seq.reasons import Action, ExclusionError, Reason

SYNTAX = "nifti"
"""Value of ``transfer_syntax`` of slices of a NIfTI volume."""
SUFFIXES = (".nii", ".nii.gz")
_LARGEST = 4 << 30
"""Largest volume in bytes, as stored."""
_MOST_SLICES, _MOST_ROWS = 10_000, 8192
_AIR_HU = -300
"""A CT volume has values below this in its middle slices, unless its values are not HU."""
_LOWEST, _HIGHEST = -32768, 32767
_LARGEST_RATIO = 2.0
"""Voxels that are longer than this within a slice, relative to their width, mean another slice plane."""
_KNOWN = 0
"""Code of a transform that is absent (``NIFTI_XFORM_UNKNOWN``)."""
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Opened:
    """A parsed NIfTI file.

    Attributes:
        image: nibabel's image; voxels are read when they are indexed.
        axes: Voxel axes of rows, columns and slices of an image.
        flips: Whether rows and columns are reversed.
    """

    image: Any
    axes: tuple[int, int, int]
    flips: tuple[bool, bool]

    def plane(self, k: int) -> NDArray[Any]:
        """Scaled values of slice ``k`` of the stored order, (row, column)."""
        at: list[Any] = [slice(None)] * 3
        at[self.axes[2]] = k
        try:
            values = np.asarray(self.image.dataobj[tuple(at)])
        except Exception as error:  # damaged offsets may raise any exception
            raise ExclusionError(Reason.PIXELS_UNDECODABLE, f"NIfTI: {type(error).__name__}") from error
        if self.axes[0] > self.axes[1]:
            values = values.T
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return values[rows, columns]


def is_nifti(path: str) -> bool:
    """Whether a path has the suffix of a NIfTI file."""
    return path.lower().endswith(SUFFIXES)


def must_have_nibabel() -> None:
    """Refuse to go on without nibabel.

    Raises:
        EnvironmentFaultError: It is not installed.
    """
    try:
        import nibabel  # noqa: F401
    except ImportError as error:
        raise EnvironmentFaultError(
            'NIfTI files are read with nibabel, which is not installed: pip install "rsna-seq[nifti]"'
        ) from error


def stem_of(path: str) -> str:
    """File name without folder and suffix."""
    name = PurePosixPath(path).name
    suffix = next((s for s in reversed(SUFFIXES) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)] if suffix else name


def read_nifti_headers(path: str, assume_hu: bool = False) -> list[Header]:
    """Read one header per slice of a NIfTI volume.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file, or a member of an archive.
        assume_hu: Use the values as HU even if there is no air.

    Returns:
        Headers in stored order. ``study`` is made of the names of the folder and of the file; ``slice`` is
        ``STUDY#N``, N from 1.

    Raises:
        ExclusionError: The file is not a readable CT volume.
    """
    try:
        must_have_nibabel()
    except EnvironmentFaultError as error:
        raise ExclusionError(Reason.NOT_DICOM, str(error), action=Action.SKIPPED) from error
    opened = _open(path)
    if not assume_hu:
        _must_have_air(opened)
    shape, affine = opened.image.shape, np.asarray(opened.image.affine, dtype=np.float64)
    sizes = [shape[axis] for axis in opened.axes]
    geometry = _geometry(opened, affine, sizes)
    parent = PurePosixPath(path).parent.name
    study = f"{parent}-{stem_of(path)}" if parent else stem_of(path)
    return [_header(study, k, sizes, geometry) for k in range(sizes[2])]


def read_nifti_plane(path: str, frame: int, out: NDArray[np.int16]) -> NDArray[np.int16]:
    """Read one slice of a NIfTI volume in HU.

    Args:
        path: The file.
        frame: Index of the slice in the stored order, from 0.
        out: (row, column) array that receives the values.

    Raises:
        ExclusionError: The file cannot be read, or its size differs from the header that was indexed.
    """
    values = _open(path).plane(frame)
    if values.shape != out.shape:
        raise ExclusionError(Reason.FILE_CHANGED, f"{values.shape} pixels, {out.shape} when indexed")
    if not np.isfinite(values).all():
        values = np.nan_to_num(values, nan=-1024.0, posinf=_HIGHEST, neginf=_LOWEST)
    out[...] = np.clip(np.rint(values), _LOWEST, _HIGHEST)
    return out


def _open(path: str) -> _Opened:
    """Parse a file; the last one stays in memory, because its slices are read one by one."""
    status = os.stat(path) if os.path.exists(path) else None  # noqa: PTH110, PTH116
    return _parsed(path, status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _parsed(path: str, _status: tuple[int, int] | None) -> _Opened:
    import nibabel

    data = read_whole(path, _LARGEST)
    second = data[:4] in {b"\x1c\x02\0\0", b"\0\0\x02\x1c"}  # the size of its header, 540
    try:
        image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_stream(io.BytesIO(data))
        affine = np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # a damaged header may raise any exception
        raise ExclusionError(Reason.HEADER_INVALID, f"NIfTI: {type(error).__name__}") from error
    return _Opened(_checked(image, len(data)), *_axes(affine[:3, :3]))


def _checked(image: Any, size: int) -> Any:
    """Refuse volumes that are not three-dimensional, whose voxels are missing or are no numbers."""
    shape, kind = image.shape, image.get_data_dtype()
    if len(shape) == 4 and shape[3] == 1:
        image = image.slicer[..., 0]
        shape = image.shape
    if len(shape) != 3 or kind.kind not in "iuf":
        raise ExclusionError(Reason.BAD_PIXEL_FORMAT, f"NIfTI of shape {shape} and type {kind}")
    if min(shape) < 1 or max(shape) > _MOST_SLICES:
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"NIfTI of shape {shape}")
    if int(np.prod(shape)) * kind.itemsize > size:
        raise ExclusionError(Reason.PIXELS_TRUNCATED, f"{size:,} bytes for {shape} voxels")
    return image


def _axes(columns: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool]]:
    """Voxel axes of rows, columns and slices, and which of the first two are reversed.

    Args:
        columns: (3, 3) directions of the voxel axes in mm; right, anterior, superior.
    """
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(columns).all() and (lengths > 0).all() and abs(np.linalg.det(columns)) > 1e-9):
        raise ExclusionError(Reason.HEADER_INVALID, "NIfTI: the affine is singular")
    unit = np.abs(columns / lengths)
    slices = int(unit[2].argmax())
    left = max((a for a in range(3) if a != slices), key=lambda a: unit[0, a])
    down = 3 - slices - left
    within = lengths[[down, left]]
    if within.max() / within.min() > _LARGEST_RATIO:
        detail = f"voxels of {within[0]:.2f} x {within[1]:.2f} mm within an axial image"
        raise ExclusionError(Reason.NOT_AXIAL, detail, action=Action.SKIPPED)
    # rows go to posterior and columns to the left of the patient, both against the axes of NIfTI
    return (down, left, slices), (bool(columns[1, down] > 0), bool(columns[0, left] > 0))


def _must_have_air(opened: _Opened) -> None:
    """Refuse values that are not HU: there is no air in the middle slices."""
    count = opened.image.shape[opened.axes[2]]
    some = [opened.plane(k) for k in sorted({count // 4, count // 2, 3 * count // 4})]
    lowest = float(min(plane.min() for plane in some))
    if not lowest < _AIR_HU:
        raise ExclusionError(Reason.NOT_HU, f"NIfTI: the lowest value of the middle slices is {lowest:g}")


def _geometry(opened: _Opened, affine: NDArray[np.float64], sizes: list[int]) -> dict[str, Any]:
    """Origin of slice 0, step to the next, directions and spacing of rows and columns, in DICOM's axes."""
    header = opened.image.header
    down, left, slices = (_TO_LPS @ affine[:3, axis] for axis in opened.axes)
    origin = _TO_LPS @ affine[:3, 3]
    if opened.flips[0]:
        origin, down = origin + down * (sizes[0] - 1), -down
    if opened.flips[1]:
        origin, left = origin + left * (sizes[1] - 1), -left
    row_mm, col_mm = float(np.linalg.norm(down)), float(np.linalg.norm(left))
    known = int(header["sform_code"]) != _KNOWN or int(header["qform_code"]) != _KNOWN
    valid = all(SPACING_MM[0] <= side <= SPACING_MM[1] for side in (row_mm, col_mm))
    return {
        "origin": origin,
        "step": slices,
        "orientation": np.concatenate([left / col_mm, down / row_mm]),
        "row_mm": row_mm if valid else None,
        "col_mm": col_mm if valid else None,
        "known": known,
    }


def _header(study: str, k: int, sizes: list[int], geometry: dict[str, Any]) -> Header:
    """The columns of COLUMNS for one slice."""
    if max(sizes[:2]) > _MOST_ROWS:
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"{sizes[0]:,} x {sizes[1]:,} pixels")
    place = geometry["origin"] + k * geometry["step"]
    header: Header = dict.fromkeys(COLUMNS)
    header |= {"frame": k, "study": study, "series": study, "slice": f"{study}#{k + 1}", "patient": study}
    header |= {"row_mm": geometry["row_mm"], "col_mm": geometry["col_mm"], "number": k + 1}
    if geometry["known"]:
        header |= {f"p_{i}": float(v) for i, v in enumerate(place)}
        header |= {f"o_{i}": float(v) for i, v in enumerate(geometry["orientation"])}
    else:  # the orientation is unknown: only the distances are used
        header["location"] = float(k * np.linalg.norm(geometry["step"]))
    return header | plain_pixels(SYNTAX, sizes[0], sizes[1])


def plain_pixels(syntax: str, rows: int, columns: int) -> Header:
    """Columns of a header whose pixels are read as HU, from a file that is not DICOM."""
    return {
        "rows": rows,
        "columns": columns,
        "slope": 1.0,
        "intercept": 0.0,
        "bits_stored": 16,
        "signed": True,
        "photometric": "MONOCHROME2",
        "transfer_syntax": syntax,
        "pixel_offset": None,
        "image_type": "",
        "kernel": "",
        "description": "",
        "contrast": False,
        "lossy": False,
    }


def mask_values(image: str, mask: str) -> list[frozenset[int]]:
    """Values other than 0 of a mask, for each slice of its volume in stored order.

    Args:
        image: The volume, whose affine says which axis is the slice axis.
        mask: A NIfTI file of the same shape.

    Raises:
        ExclusionError: A file cannot be read, or the shapes differ.
    """
    opened = _open(image)
    axis, shape = opened.axes[2], opened.image.shape
    values = _open(mask).image
    if values.shape != shape:
        raise ExclusionError(Reason.BAD_DIMENSIONS, f"the mask has shape {values.shape}, the volume {shape}")
    try:
        stored = np.moveaxis(np.asarray(values.dataobj), axis, 0)
    except Exception as error:  # damaged offsets may raise any exception
        raise ExclusionError(Reason.PIXELS_UNDECODABLE, f"NIfTI: {type(error).__name__}") from error
    planes = (np.unique(np.rint(np.nan_to_num(plane))) for plane in stored)
    return [frozenset(int(value) for value in plane if value != 0) for plane in planes]
