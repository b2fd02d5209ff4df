"""The library's ``predict``: a folder, a zip file, a DICOM file, or an array of Hounsfield units."""

import os
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from rsna_seq.config import IndexConfig, PredictConfig
from rsna_seq.errors import IntegrityError
from rsna_seq.imaging.prepare import prepare
from rsna_seq.imaging.sources import must_exist
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.reasons import Reason
from rsna_seq.stages import index
from rsna_seq.stages.predict.scoring import are_probabilities, score_studies
from rsna_seq.stages.predict.trained import TrainedRun


def predict(
    source: str | os.PathLike[str] | NDArray[np.integer],
    run: TrainedRun | str | os.PathLike[str],
    *,
    z_mm: ArrayLike | None = None,
) -> pl.DataFrame:
    """Probabilities for a folder of DICOM studies, or for one study in memory.

    Args:
        source: A folder, a zip file, a DICOM file, or (slice, y, x) Hounsfield units.
        run: A finished run, or its folder.
        z_mm: For an array: (slice,) positions along the slice normal in mm, rising to the vertex.

    Returns:
        PREDICTED_SLICES for a folder; ``z_mm`` and the six classes, one row per slice, for an array.

    Raises:
        ValueError: An array without positions, or with others than rising ones; positions without an array.
        UsageError: The source does not exist.
        IntegrityError: The run is not finished, or gives no probabilities for the array.
    """
    if not isinstance(source, np.ndarray):
        if z_mm is not None:
            raise ValueError("z_mm goes with an array; DICOM files have positions of their own")
        must_exist(Path(source), "predict")
        scan = index.scan(Path(source), IndexConfig())
        return score_studies(PredictConfig(), scan, [_loaded(run)]).slices
    places = np.asarray([] if z_mm is None else z_mm, dtype=np.float64)
    rising = places.shape == (len(source),) and np.isfinite(places).all() and (np.diff(places) >= 0).all()
    if source.ndim != 3 or not rising:
        raise ValueError("an array is (slice, y, x) HU, with z_mm=(slice,) positions in mm that rise")
    trained = _loaded(run)
    ready = prepare([p.astype(np.int16) for p in source], places, trained.cache)
    slab = ready.numbers
    centre = np.bincount(slab, weights=places) / np.bincount(slab)
    answer = trained.score(Volume("array", ready.hu, centre))[slab]
    if not are_probabilities(answer):
        raise IntegrityError(f"{trained.folder}: {Reason.BAD_RESULT.sentence}; check the run with `evaluate`")
    return pl.DataFrame({"z_mm": places} | {name: answer[:, c] for c, name in enumerate(CLASSES)})


def _loaded(run: TrainedRun | str | os.PathLike[str]) -> TrainedRun:
    return run if isinstance(run, TrainedRun) else TrainedRun(run)
