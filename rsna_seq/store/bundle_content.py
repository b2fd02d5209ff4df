"""What a bundle keeps of a run: weights, boosters, settings, thresholds; of the training data only numbers.

The stages stay artefacts: their manifests are written again for the files that are kept.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import polars as pl
import yaml
from blake3 import blake3
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from rsna_seq.store.artifacts import Artifact, Manifest, load_manifest, open_artifact
from rsna_seq.store.outputs import MANIFEST
from rsna_seq.store.run_folder import RunFolder, open_folds

TRAINING = "training.json"
_CONFIG = "config.yaml"
_POINTS = "operating_points.json"
"""The thresholds of ``evaluate``, the only file of that stage that ``predict`` reads."""
_KEPT = {".safetensors", ".json", ".txt"}
"""Kinds of files of a stage that ``predict`` reads; other tables and arrays hold training data."""
_UNUSED = {"best.safetensors", "history.json"}
"""Files of a training that no later stage reads."""
_STUDIES, _VECTORS = "training.parquet", "training_vectors.npy"
"""Numbers of the training studies with which unseen ones are compared; kept without identifiers."""
_UNSEEN = "-1"
"""Key of the gates for unseen studies in ``gates.json``."""
_BY_FOLD = {"embed", "joint"}
"""Stages whose folds are artefacts of their own."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a bundle keeps of the training data.

    Attributes:
        prior: (6,) prevalence of each class in the slices.
        counts: Numbers of studies, slices and patients.
        phantoms_only: All studies are phantoms.
    """

    prior: list[float]
    counts: dict[str, int]
    phantoms_only: bool


def read_training(file: Path) -> TrainingSummary:
    """Read ``training.json`` of an extracted bundle."""
    return TrainingSummary(**json.loads(file.read_text(encoding="utf-8")))


def kept_stages(run: RunFolder) -> list[str]:
    """The stages that ``predict`` reads, but for ``cache``.

    ``joint`` only if a result of the stack depends on it; ``evaluate`` if it has thresholds.
    """
    stack = open_artifact(run["stack"])
    saved = json.loads(stack.file("gates.json").read_text(encoding="utf-8"))
    boosted = any(saved["gates"][_UNSEEN].values()) and "joint" in stack.manifest.config["sources"]
    averaged = any(saved.get("joint", {}).get(_UNSEEN, {}).values())
    scored = run.is_finished("evaluate") and _POINTS in load_manifest(run["evaluate"]).files
    joint, evaluate = ["joint"] if boosted or averaged else [], ["evaluate"] if scored else []
    return ["embed", "sequence", *joint, "stack", *evaluate]


def stage_files(
    run: RunFolder, artifacts: Mapping[str, Artifact], training: TrainingSummary, *, half: bool
) -> dict[str, bytes]:
    """The files of all stages with new manifests, by path in the bundle.

    Args:
        run: The run.
        artifacts: ``cache`` and the stages of :func:`kept_stages`, in their order.
        training: What is kept of the training data.
        half: Round weight matrices to half precision.
    """
    table = json_bytes(asdict(training))
    files, new = _artifact(run["cache"].name, artifacts["cache"].manifest, {TRAINING: table}, {})
    contents = {"cache": new.content}
    for stage in (name for name in artifacts if name != "cache"):
        inputs = dict(contents)
        if stage in _BY_FOLD:
            for fold, part in open_folds(run[stage]).items():
                where = f"{run[stage].name}/fold{fold}"
                more, made = _artifact(where, part.manifest, _kept(part, half=half), contents)
                files |= more
                inputs[f"fold{fold}"] = made.content
        artifact = artifacts[stage]
        more, new = _artifact(run[stage].name, artifact.manifest, _kept(artifact, half=half), inputs)
        files |= more
        contents[stage] = new.content
    return files


def _kept(artifact: Artifact, *, half: bool) -> dict[str, bytes]:
    """The files of an artefact that ``predict`` reads."""
    kept = {}
    names = [_POINTS] if _POINTS in artifact.manifest.files else artifact.manifest.files
    for name in names:
        read = PurePosixPath(name).suffix in _KEPT and PurePosixPath(name).name not in _UNUSED
        if read or name in {_STUDIES, _VECTORS}:
            data = artifact.file(name).read_bytes()
            data = _anonymous(data) if name == _STUDIES else data
            kept[name] = _halved(data) if half and name.endswith(".safetensors") else data
    return kept


def _anonymous(data: bytes) -> bytes:
    """The table of the training studies with numbers for their names."""
    table, buffer = pl.read_parquet(data), io.BytesIO()
    table.with_columns(study=pl.int_range(table.height).cast(pl.String())).write_parquet(buffer)
    return buffer.getvalue()


def _halved(data: bytes) -> bytes:
    """Matrices and filters in half precision; vectors, such as norms and biases, stay as they are."""
    tensors = load_tensors(data)
    return save_tensors({k: v.astype("float16") if v.ndim > 1 else v for k, v in sorted(tensors.items())})


def _artifact(
    where: str, old: Manifest, kept: Mapping[str, bytes], contents: Mapping[str, str]
) -> tuple[dict[str, bytes], Manifest]:
    """The files of an artefact of the bundle by path, and its manifest."""
    changed = {name: contents.get(name, content) for name, content in old.inputs.items()}
    digests = {name: blake3(data).hexdigest() for name, data in kept.items()}
    manifest = old.model_copy(update={"files": digests, "inputs": changed}).sealed()
    files = {f"{where}/{name}": data for name, data in kept.items()}
    return files | {f"{where}/{MANIFEST}": json_bytes(manifest.model_dump(mode="json"))}, manifest


def json_bytes(value: object) -> bytes:
    """A JSON file; equal values give equal bytes."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def config_of(run: RunFolder) -> dict[str, bytes]:
    """The config of a run without the section on its data, whose paths may name a hospital or a person.

    Returns:
        The file by its name; nothing if the run has none.
    """
    config = run.path / _CONFIG
    if not config.is_file():
        return {}
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    kept = {name: section for name, section in tree.items() if name != "data"}
    return {_CONFIG: yaml.safe_dump(kept, sort_keys=False).encode()}
