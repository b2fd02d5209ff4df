"""The folder of a run: which stage lies where in it, and whether its stages belong together."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rsna_seq.errors import IntegrityError
from rsna_seq.store.artifacts import Artifact, open_artifact
from rsna_seq.store.outputs import MANIFEST

STAGES = ("index", "cache", "embed", "sequence", "stack", "evaluate", "predict")
"""The stages in the order of the data; the position of a stage numbers its folder."""


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
        """The folder of a stage.

        Raises:
            KeyError: There is no such stage.
        """
        if stage not in STAGES:
            raise KeyError(stage)
        return self.path / f"{STAGES.index(stage) + 1}_{stage}"

    def is_finished(self, stage: str) -> bool:
        """Whether the artefact of a stage is complete."""
        return (self[stage] / MANIFEST).is_file()

    def open(self, *stages: str) -> dict[str, Artifact]:
        """Open the artefacts of some stages and check that they belong together.

        An earlier stage that lies in the folder, but was not asked for, is checked too.

        Raises:
            IntegrityError: A stage is not finished or damaged, or was built from another artefact than the
                one that lies here now.
        """
        opened = {stage: open_artifact(self[stage]) for stage in stages}
        sources = {name for artifact in opened.values() for name in artifact.manifest.inputs}
        others = [s for s in STAGES if s in sources and s not in opened and self.is_finished(s)]
        must_belong_together(opened | {stage: open_artifact(self[stage]) for stage in others})
        return opened


def must_belong_together(artifacts: Mapping[str, Artifact]) -> None:
    """Refuse artefacts of which one was built from another state of a second one.

    Args:
        artifacts: By name, as the manifests of later ones name their inputs.

    Raises:
        IntegrityError: Names both.
    """
    for name, artifact in artifacts.items():
        for source in _changed(artifact, artifacts):
            raise IntegrityError(
                f"{artifact.folder} was built from another {source} than the one in "
                f"{artifacts[source].folder}: they do not belong together. Run {name.split()[0]} again "
                "(a trained stage with --rebuild), or restore the stage that it was built from"
            )


def _changed(artifact: Artifact, artifacts: Mapping[str, Artifact]) -> Iterable[str]:
    """Inputs of an artefact that are not what lies there now."""
    inputs = artifact.manifest.inputs
    return (s for s in inputs if s in artifacts and artifacts[s].manifest.content != inputs[s])


def open_folds(embed: Path) -> dict[int, Artifact]:
    """The folds of the finished stage ``embed``, each an artefact of its own, by number.

    Args:
        embed: The stage's folder.

    Raises:
        IntegrityError: The stage or a fold is not finished or damaged, or is not the one that was joined.
    """
    stage = open_artifact(embed)
    names = sorted((n for n in stage.manifest.inputs if n.startswith("fold")), key=lambda name: int(name[4:]))
    folds = {name: open_artifact(embed / name) for name in names}
    must_belong_together({"embed": stage, **folds})
    return {int(name[4:]): artifact for name, artifact in folds.items()}
