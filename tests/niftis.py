"""NIfTI volumes for tests, written by nibabel from slices with DICOM geometry."""

from pathlib import Path

import numpy as np

ROWS, COLUMNS = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def affine_of(
    origin: tuple[float, ...],
    step: tuple[float, ...],
    *,
    row: tuple[float, ...] = ROWS,
    column: tuple[float, ...] = COLUMNS,
    spacing: float = 2.0,
) -> np.ndarray:
    """The affine of an array (column, row, slice) from ImagePositionPatient and ImageOrientationPatient."""
    affine = np.eye(4)
    lps = np.column_stack([np.multiply(row, spacing), np.multiply(column, spacing), step])
    affine[:3, :3], affine[:3, 3] = _TO_RAS @ lps, _TO_RAS @ np.asarray(origin)
    return affine


def write_nifti(path: Path, slices: list[np.ndarray], affine: np.ndarray, kind: type = np.int16) -> Path:
    """Write (row, column) slices, first slice first, with scanner coordinates."""
    import nibabel

    data = np.stack([plane.T for plane in slices], axis=2).astype(kind)
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path
