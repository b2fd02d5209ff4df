"""Pixels of slices whose files are not DICOM, by the ``transfer_syntax`` of their header."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsna_seq.imaging import jpeg_windows, nifti
from rsna_seq.imaging.sources import must_be

_READERS: dict[str, Callable[[str, int, NDArray[np.int16]], NDArray[np.int16]]] = {
    nifti.SYNTAX: nifti.read_nifti_plane,
    jpeg_windows.SYNTAX: lambda path, _frame, out: jpeg_windows.read_jpeg_hu(path, out),
}
OTHER_FORMATS = frozenset(_READERS)
"""Values of ``transfer_syntax`` that :func:`read_other` reads."""


def read_other(path: str, header: Mapping[str, Any], out: NDArray[np.int16]) -> NDArray[np.int16]:
    """Read the HU of a slice whose file is not DICOM.

    Args:
        path: The file.
        header: A row of SLICES.
        out: (rows, columns) array that receives the values.

    Raises:
        ExclusionError: The file changed since it was indexed, or cannot be read.
    """
    must_be(path, header["file_size"], header["file_mtime_ns"])
    return _READERS[header["transfer_syntax"]](path, header["frame"], out)
