"""Write NumPy files row by row with plain writes: a memory map would raise SIGBUS on a full disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rsna_seq.store.files import atomic_path

_HEADER_BYTES = 128


class ArrayWriter:
    """Append rows to a ``.npy`` file; the header is completed at the end."""

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self._file = path.open("r+b")
        self._file.write(bytes(_HEADER_BYTES))
        self.dtype, self.row_shape, self.rows = dtype, row_shape, 0

    def append(self, rows: NDArray[np.generic]) -> None:
        """Write rows, (row, *row_shape)."""
        assert rows.shape[1:] == self.row_shape, (rows.shape, self.row_shape)
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.rows += len(rows)

    def close(self) -> None:
        """Write the header (version 1.0 of NumPy's format) and close the file."""
        shape = str((self.rows, *self.row_shape))
        text = f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
        magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(magic + text.ljust(_HEADER_BYTES - 11).encode() + b"\n")
        self._file.close()


@contextmanager
def array_writer(
    path: Path, dtype: DTypeLike, row_shape: tuple[int, ...], *, rows: int = 0, sync: bool = True
) -> Iterator[ArrayWriter]:
    """Write a ``.npy`` file row by row, atomically.

    Args:
        path: The file.
        dtype: Type of the values.
        row_shape: Shape of one row.
        rows: Expected number of rows, so that a full disk is reported before the rows are computed.
        sync: Wait until the file is on the disk.

    Raises:
        EnvironmentFaultError: The file cannot be written.
    """
    kind = np.dtype(dtype)
    needed = _HEADER_BYTES + rows * kind.itemsize * int(np.prod(row_shape))
    with atomic_path(path, sync=sync, needed=needed) as temporary:
        writer = ArrayWriter(temporary, kind, row_shape)
        try:
            yield writer
        finally:
            writer.close()
