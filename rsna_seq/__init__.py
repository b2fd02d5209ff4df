"""Intracranial haemorrhage on head CT, read slice by slice with the whole study in view.

The names below are the library; each is imported when it is first used, so that ``import rsna_seq`` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsna_seq.config import Config, load_config
    from rsna_seq.imaging.volume import Volume
    from rsna_seq.labels import CLASSES
    from rsna_seq.nets.cnn import Embedder
    from rsna_seq.nets.data import SlabDataset, StudyDataset
    from rsna_seq.nets.sequence_model import SequenceModel
    from rsna_seq.scoring.metric import log_loss
    from rsna_seq.stacking.stacker import Stacker
    from rsna_seq.stages.predict.library import predict
    from rsna_seq.stages.predict.trained import TrainedRun
    from rsna_seq.store.pixel_cache import PixelCache
    from rsna_seq.store.tables import read_index

_HOMES = {
    "CLASSES": "rsna_seq.labels",
    "Config": "rsna_seq.config",
    "Embedder": "rsna_seq.nets.cnn",
    "PixelCache": "rsna_seq.store.pixel_cache",
    "SequenceModel": "rsna_seq.nets.sequence_model",
    "SlabDataset": "rsna_seq.nets.data",
    "Stacker": "rsna_seq.stacking.stacker",
    "StudyDataset": "rsna_seq.nets.data",
    "TrainedRun": "rsna_seq.stages.predict.trained",
    "Volume": "rsna_seq.imaging.volume",
    "load_config": "rsna_seq.config",
    "log_loss": "rsna_seq.scoring.metric",
    "predict": "rsna_seq.stages.predict.library",
    "read_index": "rsna_seq.store.tables",
}

__all__ = [
    "CLASSES",
    "Config",
    "Embedder",
    "PixelCache",
    "SequenceModel",
    "SlabDataset",
    "Stacker",
    "StudyDataset",
    "TrainedRun",
    "Volume",
    "load_config",
    "log_loss",
    "predict",
    "read_index",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rsna_seq' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
