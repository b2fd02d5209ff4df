"""Whether the frames that headers declare are plausible and fit into memory, before any of it is allocated.

A compressed file of 900 bytes may declare a frame of 8192 x 8192, which takes 128 MiB. What a transfer
syntax can make of a byte at most bounds a frame; what memory is available bounds the frames of a study.
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
"""Bytes of pixels up to which one frame is harmless, however small its file."""
_SMALL_STUDY = 512 << 20
"""Bytes of pixels up to which a study is harmless: 1,024 slices of 512 x 512."""
_LARGE_STUDY = 4 << 30
"""Bytes of pixels beyond which a study must have files to match, whatever memory there is."""
_RATIOS = {
    **{str(JPEGLossless): 16, str(JPEGLosslessSV1): 16},  # a pixel takes one bit at least (ITU-T T.81, H.1)
    str(RLELossless): 64,  # two bytes stand for 128 (PS3.5 G.3.1)
    **{str(JPEGBaseline8Bit): 512, str(JPEGExtended12Bit): 512},  # a block of 8 x 8 takes two bits
}
"""Bytes of 16-bit pixels that a transfer syntax can make of one byte at most."""
_RATIO = 1000
"""The same for the others, which have no bound: a frame of pure air shrinks so far, no noise does."""
_USUAL_RATIO = 64
"""A frame that shrinks further is no tissue: that shrinks by 2 to 6, with loss by 30."""
_GROUP_FILES = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        *("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
}
"""By version 2 and 1 of control groups: folder, files of the limit and of what is used, key of the cache."""
_USABLE = 0.75
"""Share of the available memory that one study's pixels may take."""


def must_be_plausible_frame(header: Mapping[str, Any]) -> None:
    """Refuse a frame that its file is far too small for.

    Args:
        header: A row of SLICES.

    Raises:
        ExclusionError: The declared frame is large, and no encoder makes its file so small.
    """
    pixels = 2 * header["rows"] * header["columns"]
    if pixels > _SMALL_FRAME and pixels > _ratio_of(header["transfer_syntax"]) * header["file_size"]:
        raise _implausible(header["rows"], header["columns"], header["file_size"])


def frames_to_refuse(slices: pl.DataFrame) -> dict[int, ExclusionError]:
    """Frames of a study that must not be allocated.

    They are those that are implausible one by one; and, where the study does not fit into memory, those
    that shrink further than tissue does, the most extreme first, until it fits.

    Args:
        slices: Rows of SLICES that are held in memory together.

    Returns:
        The reason, by number of the row.

    Raises:
        EnvironmentFaultError: The frames are plausible, and the machine has too little memory for them.
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
    """Memory that this process may still allocate: the machine's, the control group's, its own limit's."""
    return max(0, min([_machine_bytes(), *_group_bytes(), *_own_bytes()]))


def _ratio_of(syntax: str) -> int:
    return _RATIOS.get(syntax, _RATIO)


def _implausible(rows: int, columns: int, size: int) -> ExclusionError:
    return ExclusionError(Reason.FRAME_IMPLAUSIBLE, f"{rows:,} x {columns:,} pixels from {size:,} bytes")


def _machine_bytes() -> int:
    """What the kernel says is available; without ``/proc``, all memory."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_bytes() -> Iterator[int]:
    """What is left below the limit of each control group that this process is in; containers have one."""
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
    """What is left below this process's own limit (``ulimit -v``)."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        pages = 0
    yield limit - pages * resource.getpagesize()


def _number(file: Path) -> int | None:
    """The number that a file of the kernel holds; None where it holds none, as without a limit."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(file: Path, key: str) -> int:
    """Bytes of cached files, which the kernel gives up when memory is asked for."""
    try:
        return int(file.read_text(encoding="ascii").partition(f"\n{key} ")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 0
