"""Hounsfield units as pydicom has them: what the package's own are compared with."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale, pixel_array

AIR_HU, HIGHEST_HU = -1024, 32767


def pydicom_hu(path: Path, frame: int) -> NDArray[np.int64] | None:
    """HU of one frame by pydicom alone, padding and all below -1024 as air; None where pydicom cannot.

    Args:
        path: A file that is no archive's member.
        frame: Number of the frame, from 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dcmread(path, force=True)
            stored = pixel_array(dataset, index=frame, raw=True)
            scaled = apply_rescale(stored, rescaled_by(dataset, frame))
        except Exception:  # pydicom raises anything on a damaged file
            return None
    if stored.ndim != 2:
        return None
    hu: NDArray[np.int64] = np.clip(np.rint(scaled), AIR_HU, HIGHEST_HU).astype(np.int64)
    hu[is_padding(stored, dataset)] = AIR_HU
    return hu


def rescaled_by(dataset: Dataset, frame: int) -> Dataset:
    """What holds the rescale of a frame: its functional group (PS3.3 C.7.6.16.2.9), or the data set."""
    for name, at in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(name)
        if groups and "PixelValueTransformationSequence" in groups[at]:
            item: Dataset = groups[at].PixelValueTransformationSequence[0]
            return item
    return dataset


def is_padding(stored: NDArray[np.integer], dataset: Dataset) -> NDArray[np.bool_]:
    """Which pixels hold PixelPaddingValue, whose sign its representation does not always tell."""
    try:
        value = int(dataset.PixelPaddingValue)
    except Exception:  # absent, empty, several, or damaged
        return np.zeros(stored.shape, dtype=bool)
    alike = {value, value - 65536} if dataset.PixelRepresentation == 1 else {value}
    return np.isin(stored, list(alike))
