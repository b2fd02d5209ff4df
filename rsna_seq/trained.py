"""A finished run, loaded: what ``predict`` and the library score studies with."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.artifacts import read_manifest
from rsna_seq.config import CacheConfig, EmbedConfig, SequenceConfig, StackConfig
from rsna_seq.imaging.volume import PixelCache, Volume
from rsna_seq.labels import CLASSES
from rsna_seq.stack_features import opinions
from rsna_seq.stages import embed, sequence, stack
from rsna_seq.submission import prior_of
from rsna_seq.tables import logit_table

Floats = NDArray[np.float64]
_LOADED = (".safetensors", ".json", ".txt")
"""Files of a run that say what is computed: none is loaded before its digest is compared."""


class TrainedRun:
    """A finished run, loaded once: everything that a study needs to be scored.

    Args:
        folder: The folder of the run, with ``2_cache`` to ``5_stack``.
        device: ``auto`` or a torch device.

    Raises:
        IntegrityError: A stage is not finished, or its files are damaged.
    """

    def __init__(self, folder: str | os.PathLike[str], device: str = "auto") -> None:
        folder = Path(folder)
        self.folder, self.device = folder, device
        manifests = {
            name: read_manifest(folder / name, verify=_LOADED)
            for name in ("2_cache", "3_embed", "4_sequence", "5_stack")
        }
        self.content = {name: m.content for name, m in manifests.items() if name != "2_cache"}
        self.cache = manifests["2_cache"].section(CacheConfig)
        self.embedders = embed.load(manifests["3_embed"].section(EmbedConfig), folder / "3_embed", device)
        self.models = sequence.load(
            manifests["4_sequence"].section(SequenceConfig), folder / "4_sequence", device
        )
        self.stackers = stack.load(manifests["5_stack"].section(StackConfig), folder / "5_stack")

    @cached_property
    def _slabs(self) -> pl.DataFrame:
        return PixelCache(self.folder / "2_cache").slabs.filter(pl.col("fold") >= 0)

    @cached_property
    def prior(self) -> Floats:
        """Prevalence of each class in the slices that were trained on, (6,)."""
        return prior_of(self._slabs.drop("hashes").explode("slices"))

    @property
    def patients(self) -> pl.Series:
        """PatientIDs of the patients that were trained on."""
        return self._slabs["patient"].unique()

    def score(self, volume: Volume, *, tta: bool = False) -> Floats:
        """Probabilities of one study, (slab, 6); they depend on nothing but the study.

        Args:
            volume: The study, as ``cache`` makes it.
            tta: Average with the left-right flipped study.
        """
        slabs = volume.places()
        cnn, refined = [], []
        for net, embedder in self.embedders.items():
            seen = embed.apply(embedder, volume, tta=tta or None)
            cnn.append(logit_table(slabs, seen.logits, net=net))
            for cross, models in self.models.items():
                logits = sequence.apply(models, seen.vectors, seen.logits, volume.z_mm)
                refined.append(logit_table(slabs, logits, net=net, cross=cross))
        table = opinions(pl.concat(cnn), pl.concat(refined), slabs)
        total = np.zeros((len(volume), len(CLASSES)))
        for cross, stacker in self.stackers.items():
            logits = stack.apply(stacker, table.filter(pl.col("cross") == cross))
            total += (1 / (1 + np.exp(-logits))).reshape(len(self.embedders), len(volume), -1).sum(axis=0)
        probabilities: Floats = total / (len(self.embedders) * len(self.stackers))
        return probabilities
