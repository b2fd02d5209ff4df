"""Check before allocation that declared frame sizes are plausible and fit into memory.

A compressed file of 900 bytes may declare a frame of 8192 x 8192, which takes 128 MiB. The size of a frame is
limited by the maximum compression ratio of its transfer syntax; the frames of a study by the available
memory.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, RLELossless

from rsna_seq.errors import EnvironmentFaultError
from rsna_seq.reasons import ExclusionError, Reason

_SMALL_FRAME = 2 * 2048 * 2048
"""Size of a frame in bytes up to which it is accepted, regardless of its file size."""
_SMALL_STUDY = 512 << 20
"""Size of a study's pixels in bytes up to which it is accepted: 1,024 slices of 512 x 512."""
_LARGE_STUDY = 4 << 30
"""Size of a study's pixels in bytes above which file sizes are checked, regardless of available memory."""
_RATIOS = {
    **{str(JPEGLossless): 16, str(JPEGLosslessSV1): 16},  # at least one bit per pixel (ITU-T T.81, H.1)
    str(RLELossless): 64,  # two bytes encode up to 128 (PS3.5 G.3.1)
    **{str(JPEGBaseline8Bit): 512, str(JPEGExtended12Bit): 512},  # at least two bits per block of 8 x 8
}
"""Maximum compression ratio of 16-bit pixels, by transfer syntax."""
_RATIO = 1000
"""Limit for other transfer syntaxes, which have no maximum: only a frame of pure air reaches this ratio."""
_USUAL_RATIO = 64
"""A frame with a higher ratio contains no tissue, which reaches 2 to 6, or 30 with lossy compression."""
_GROUP_FILES = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        *("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
}
"""For version 2 and 1 of control groups: folder, files with limit and usage, key of the cache."""
_USABLE = 0.75
"""Fraction of the available memory that one study's pixels may use."""


def must_be_plausible_frame(header: Mapping[str, Any]) -> None:
    """Refuse a frame that is implausibly large for its file.

    Args:
        header: A row of SLICES.

    Raises:
        ExclusionError: The declared frame is large, and no encoder can produce such a small file.
    """
    pixels = 2 * header["rows"] * header["columns"]
    if pixels > _SMALL_FRAME and pixels > _ratio_of(header["transfer_syntax"]) * header["file_size"]:
        raise _implausible(header["rows"], header["columns"], header["file_size"])


def frames_to_refuse(slices: pl.DataFrame) -> dict[int, ExclusionError]:
    """Select frames of a study that must not be allocated.

    These are frames that are implausible by themselves and, if the study does not fit into memory, frames
    with a higher compression ratio than tissue, highest first, until the study fits.

    Args:
        slices: Rows of SLICES that are in memory at the same time.

    Returns:
        The reason, by row index.

    Raises:
        EnvironmentFaultError: The frames are plausible, but the machine has too little memory.
    """
    pixels = 2 * slices["rows"].to_numpy().astype(np.int64) * slices["columns"].to_numpy()
    if not len(pixels) or (pixels.max() <= _SMALL_FRAME and pixels.sum() <= _SMALL_STUDY):
        return {}
    sizes = slices.select(pl.col("file_size") / pl.len().over("file")).to_series().to_numpy()
    ratios = pixels / np.maximum(sizes, 1)
    highest = np.array([_ratio_of(syntax) for syntax in slices["transfer_syntax"]])
    refused = (pixels > _SMALL_FRAME) & (ratios > highest)
    usable = int(_USABLE * available_bytes())
    excess = int(pixels[~refused].sum()) - min(usable, _LARGE_STUDY)
    for i in np.argsort(-ratios, kind="stable"):
        if excess <= 0 or ratios[i] <= _USUAL_RATIO:
            break
        if not refused[i]:
            refused[i] = True
            excess -= int(pixels[i])
    wanted = int(pixels[~refused].sum())
    if wanted > _SMALL_STUDY and wanted > usable:
        raise EnvironmentFaultError(
            f"study {slices['study'][0]}: the pixels of {int((~refused).sum()):,} slices need "
            f"{wanted / 1e9:,.1f} GB of memory, {usable / 1e9:,.1f} GB are available; "
            "free memory, or use fewer workers"
        )
    about = slices.select("rows", "columns", "file_size")
    return {int(i): _implausible(*about.row(int(i))) for i in np.flatnonzero(refused)}


def available_bytes() -> int:
    """Memory that this process may still allocate: minimum over machine, control groups and process limit."""
    return max(0, min([_machine_bytes(), *_group_bytes(), *_own_bytes()]))


def _ratio_of(syntax: str) -> int:
    return _RATIOS.get(syntax, _RATIO)


def _implausible(rows: int, columns: int, size: int) -> ExclusionError:
    return ExclusionError(Reason.FRAME_IMPLAUSIBLE, f"{rows:,} x {columns:,} pixels from {size:,} bytes")


def _machine_bytes() -> int:
    """Available memory according to the kernel; total memory without ``/proc``."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_bytes() -> Iterator[int]:
    """Remaining memory of each control group of this process, such as that of a container."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in _GROUP_FILES:
            continue
        place, limit_file, used_file, key = _GROUP_FILES[controllers]
        inside = (Path(place) / group.strip("/") / "x").parents
        for folder in (f for f in inside if f.is_relative_to(place)):
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None and used is not None:
                yield limit - used + _reclaimable(folder / "memory.stat", key)


def _own_bytes() -> Iterator[int]:
    """Remaining memory below this process's limit (``ulimit -v``)."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        pages = 0
    yield limit - pages * resource.getpagesize()


def _number(file: Path) -> int | None:
    """The number in a kernel file; None if it contains no number, as without a limit."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(file: Path, key: str) -> int:
    """Bytes of cached files, which the kernel releases on demand."""
    try:
        return int(file.read_text(encoding="ascii").partition(f"\n{key} ")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 0
