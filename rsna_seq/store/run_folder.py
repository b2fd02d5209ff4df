"""The folder of a run: the subfolders of its stages, and checks that the stages belong together."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsna_seq.errors import IntegrityError
from rsna_seq.store.artifacts import Artifact, load_manifest, open_artifact
from rsna_seq.store.outputs import MANIFEST

_FOLDERS = (
    "1_index",
    "2_cache",
    "3_embed",
    "4_sequence",
    "4_joint",
    "5_stack",
    "6_evaluate",
    "7_predict",
)
"""Folders of the stages in processing order. ``sequence`` and ``joint`` have the same number, because both
build on ``embed`` and neither reads the other."""
STAGES = tuple(folder.split("_", 1)[1] for folder in _FOLDERS)
"""The stages in processing order."""
OPTIONAL = frozenset({"joint"})
"""Stages without which a run is complete."""
PHANTOMS = "phantom studies"
"""Name of the count of synthetic studies in the manifest of ``index``."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk; ``RunFolder("runs/base")["embed"]`` is the folder ``runs/base/3_embed``.

    Attributes:
        path: The run's folder; it need not exist.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(path))

    def __getitem__(self, stage: str) -> Path:
        """Return the folder of a stage.

        Raises:
            KeyError: The stage does not exist.
        """
        if stage not in STAGES:
            raise KeyError(stage)
        return self.path / _FOLDERS[STAGES.index(stage)]

    def is_finished(self, stage: str) -> bool:
        """Whether the artefact of a stage is complete."""
        return (self[stage] / MANIFEST).is_file()

    def open(self, *stages: str) -> dict[str, Artifact]:
        """Open the artefacts of some stages and check that they belong together.

        Earlier stages in the folder that were not requested are checked as well.

        Raises:
            IntegrityError: A stage is incomplete or damaged, or was built from an artefact that differs from
                the one in this folder.
        """
        opened = {stage: open_artifact(self[stage]) for stage in stages}
        sources = {name for artifact in opened.values() for name in artifact.manifest.inputs}
        others = [s for s in STAGES if s in sources and s not in opened and self.is_finished(s)]
        must_belong_together(opened | {stage: open_artifact(self[stage]) for stage in others})
        return opened


def is_phantom_run(run: RunFolder) -> bool:
    """Whether all studies of a run are phantoms; False where the index is not there."""
    try:
        counts = load_manifest(run["index"]).counts
    except IntegrityError:
        return False
    return counts.get(PHANTOMS, 0) == counts.get("studies", -1)


def is_phantom_set(root: Path) -> bool:
    """Whether the data root was written by ``synth``, and so holds no patient."""
    try:
        return load_manifest(root).stage == "synth"
    except IntegrityError:
        return False


def must_belong_together(artifacts: Mapping[str, Artifact]) -> None:
    """Refuse artefacts if one was built from a different version of another.

    Args:
        artifacts: By name, as used for the inputs in the manifests of later artefacts.

    Raises:
        IntegrityError: Two artefacts do not match; the message names both.
    """
    for name, artifact in artifacts.items():
        for source in _changed(artifact, artifacts):
            raise IntegrityError(
                f"{artifact.folder} was built from a different {source} than the one in "
                f"{artifacts[source].folder}: they do not belong together. Run {name.split()[0]} again "
                "(a trained stage with --rebuild), or restore the stage that it was built from"
            )


def _changed(artifact: Artifact, artifacts: Mapping[str, Artifact]) -> Iterable[str]:
    """Inputs of an artefact whose content differs from the current artefacts."""
    inputs = artifact.manifest.inputs
    return (s for s in inputs if s in artifacts and artifacts[s].manifest.content != inputs[s])


def open_folds(folder: Path) -> dict[int, Artifact]:
    """Return the folds of a complete stage (``embed`` or ``joint``) by number; each is an artefact.

    Args:
        folder: The stage's folder.

    Raises:
        IntegrityError: The stage or a fold is incomplete or damaged, or a fold changed after it was joined.
    """
    stage = open_artifact(folder)
    names = sorted((n for n in stage.manifest.inputs if n.startswith("fold")), key=lambda name: int(name[4:]))
    folds = {name: open_artifact(folder / name) for name in names}
    must_belong_together({stage.manifest.stage: stage, **folds})
    return {int(name[4:]): artifact for name, artifact in folds.items()}
