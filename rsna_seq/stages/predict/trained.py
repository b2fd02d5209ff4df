"""A finished run or a bundle, loaded for prediction."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rsna_seq.arrays import Floats, sigmoid
from rsna_seq.clinic.results import Model
from rsna_seq.config import CacheConfig, EmbedConfig, JointConfig, SequenceConfig, StackConfig
from rsna_seq.console import say
from rsna_seq.imaging.volume import Volume
from rsna_seq.labels import CLASSES
from rsna_seq.models import PACKAGED
from rsna_seq.nets.joint_model import JointModel
from rsna_seq.scoring.baselines import slab_prior
from rsna_seq.scoring.novelty import Training
from rsna_seq.stacking.features import join_logits
from rsna_seq.stages import embed, joint, sequence, stack
from rsna_seq.stages.predict.thresholds import read_points
from rsna_seq.store.artifacts import Manifest
from rsna_seq.store.bundle import extract_bundle, is_bundle, read_bundle
from rsna_seq.store.bundle_content import TRAINING, read_training
from rsna_seq.store.pixel_cache import PixelCache
from rsna_seq.store.provenance import package_version, source_digest
from rsna_seq.store.remote import local_model
from rsna_seq.store.run_folder import RunFolder, is_phantom_run
from rsna_seq.store.tables import logit_table


class Answers(NamedTuple):
    """One study, or one of its passes, as the networks of a run see it."""

    probabilities: Floats
    """(network, slab, 6); a network is a pair of embedding network and crossed model."""
    vectors: dict[int, NDArray[np.float32]]
    """By embedding network, (feature,) mean of the vectors over the slabs."""


class TrainedRun:
    """A finished run or a bundle, loaded once: all networks and boosters that score a study.

    Args:
        folder: The folder of the run, with ``2_cache`` to ``5_stack``, or a bundle (``.zip``), also one
            on the internet (:mod:`rsna_seq.store.remote`). ``4_joint`` is needed only if the stack uses it.
        device: ``auto`` or a torch device.

    Raises:
        IntegrityError: A stage is not finished or damaged, or the stages do not belong together.
        EnvironmentFaultError: A bundle cannot be downloaded.
    """

    def __init__(self, folder: str | os.PathLike[str], device: str = "auto") -> None:
        self.folder, self.device = local_model(folder), device
        with _as_run(self.folder) as run:
            self._load(run, device)

    def _load(self, run: RunFolder, device: str) -> None:
        """Load everything that scores a study; of a bundle the files are gone afterwards."""
        artifacts = run.open("cache", "embed", "sequence", "stack")
        made = {stage: artifact.manifest for stage, artifact in artifacts.items()}
        self.stackers = stack.load(made["stack"].section(StackConfig), run["stack"])
        if any(stacker.uses_joint for stacker in self.stackers.values()):
            made["joint"] = run.open("joint", "stack")["joint"].manifest
        if self.folder != PACKAGED:  # it is made again where its results change
            _tell_of_other_code(self.folder, made)
        self.content = {stage: manifest.content for stage, manifest in made.items() if stage != "cache"}
        self.cache = made["cache"].section(CacheConfig)
        cnn = made["embed"].section(EmbedConfig)
        self.embedders = embed.load(cnn, run["embed"], device)
        self.models = sequence.load(made["sequence"].section(SequenceConfig), run["sequence"], device)
        self.joint: dict[int, JointModel] = {}
        if "joint" in made:
            self.joint = joint.load(made["joint"].section(JointConfig), cnn, run["joint"], device)
        self.training = Training.load(artifacts["stack"])
        bundled = TRAINING in made["cache"].files
        self.bundled = read_training(artifacts["cache"].file(TRAINING)) if bundled else None
        self.phantoms_only = self.bundled.phantoms_only if self.bundled else is_phantom_run(run)
        self.identity = self._identity(made)
        self.points = read_points(run, made)

    def _identity(self, made: Mapping[str, Manifest]) -> Model:
        """Name, version and digest of the model, for results."""
        content = json.dumps(self.content | {"cache": made["cache"].config}, sort_keys=True)
        name, digest = self.folder.resolve().name, hashlib.sha256(content.encode()).hexdigest()
        if is_bundle(self.folder):
            info = read_bundle(self.folder)
            name, digest = info.name, info.digest
        version = made["stack"].version
        return Model(name=name, version=version, digest=digest, phantoms_only=self.phantoms_only)

    @cached_property
    def _pixels(self) -> PixelCache:
        return PixelCache(RunFolder(self.folder)["cache"])

    @cached_property
    def _slabs(self) -> pl.DataFrame:
        return self._pixels.slabs.filter(pl.col("fold") >= 0)

    @cached_property
    def prior(self) -> Floats:
        """Prevalence of each class in the slices that were trained on, (6,)."""
        if self.bundled is not None:
            return np.array(self.bundled.prior)
        return slab_prior(self._slabs, self._pixels.study_labels)

    @property
    def patients(self) -> pl.Series:
        """PatientIDs of the patients that were trained on; a bundle does not name them."""
        if self.bundled is not None:
            return pl.Series(dtype=pl.String())
        return self._slabs["patient"].unique()

    def score(self, volume: Volume, *, tta: bool = False) -> Floats:
        """Probabilities of one study, (slab, 6); they depend on nothing but the study.

        Args:
            volume: The study, as ``cache`` makes it.
            tta: Average with the left-right flipped study.
        """
        mean: Floats = self.answers(volume, tta=tta).probabilities.mean(axis=0)
        return mean

    def answers(self, volume: Volume, *, tta: bool = False) -> Answers:
        """Probabilities of one study by each network, and its vectors.

        Args:
            volume: The study, as ``cache`` makes it.
            tta: Average with the left-right flipped study.
        """
        slabs = volume.places()
        cnn, refined, ends = [], [], []
        vectors: dict[int, NDArray[np.float32]] = {}
        for net, embedder in self.embedders.items():
            seen = embed.apply(embedder, volume, tta=tta or None)
            vectors[net] = seen.vectors.mean(axis=0)
            cnn.append(logit_table(slabs, seen.logits, net=net))
            for cross, models in self.models.items():
                logits = sequence.apply(models, seen.vectors, seen.logits, volume.z_mm)
                refined.append(logit_table(slabs, logits, net=net, cross=cross))
            if net in self.joint:
                logits = joint.apply(self.joint[net], volume, tta=tta or None)
                ends.append(logit_table(slabs, logits, net=net))
        table = join_logits(pl.concat(cnn), pl.concat(refined), slabs, pl.concat(ends) if ends else None)
        found = [
            sigmoid(stack.apply(stacker, table.filter(pl.col("cross") == cross)))
            for cross, stacker in self.stackers.items()
        ]
        return Answers(np.concatenate(found).reshape(-1, len(volume), len(CLASSES)), vectors)


@contextmanager
def _as_run(path: Path) -> Iterator[RunFolder]:
    """The folder of a run; a bundle is extracted for as long as the block lasts."""
    if not is_bundle(path):
        yield RunFolder(path)
        return
    with TemporaryDirectory(prefix="rsna_seq_") as folder:
        extract_bundle(path, Path(folder))
        yield RunFolder(folder)


def _tell_of_other_code(run: Path, made: Mapping[str, Manifest]) -> None:
    """Say where a run was trained by another version, or by other code of the same version."""
    versions = {manifest.version for manifest in made.values()} - {package_version()}
    code = {stage: source_digest(f"rsna_seq.stages.{stage}") for stage in made if stage != "cache"}
    stages = [stage for stage, digest in code.items() if made[stage].source != digest]
    if versions:
        say(
            "predict",
            f"{run} was trained by rsna_seq {', '.join(sorted(versions))}; this is {package_version()}",
        )
    elif stages and not is_bundle(run):
        say("predict", f"{run}: the code of {', '.join(stages)} has changed since it was trained")
