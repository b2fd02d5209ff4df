"""Bundles: a finished run as one zip file, without training data.

A bundle holds the run's folder as ``predict`` reads it: the weights, boosters and settings of each stage, and
from the training data only the prevalence of each class and counts. Its manifests are written again for the
files that it holds. ``bundle.json`` lists every file with its BLAKE3; nothing in a bundle is code.

1. :func:`write_bundle`: run -> zip; the same run gives the same bytes.
2. :func:`read_bundle`: the description, checked; :func:`extract_bundle`: the files, each against its digest.
"""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import polars as pl
import yaml
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.artifacts import Artifact, Manifest, open_artifact
from rsna_seq.store.files import write_bytes
from rsna_seq.store.outputs import MANIFEST
from rsna_seq.store.provenance import package_version
from rsna_seq.store.run_folder import RunFolder, open_folds

SUFFIX = ".zip"
INFO, CARD, TRAINING = "bundle.json", "MODEL_CARD.md", "training.json"
_KINDS = {".safetensors", ".json", ".txt", ".md", ".yaml", ".parquet", ".npy"}
"""Kinds of files that a bundle may hold: weights, plain text, and tables of numbers."""
_KEPT = {".safetensors", ".json", ".txt"}
"""Kinds of files of a stage that ``predict`` reads; other tables and arrays hold training data."""
_UNUSED = {"best.safetensors", "history.json"}
"""Files of a training that no later stage reads."""
_STUDIES, _VECTORS = "training.parquet", "training_vectors.npy"
"""Numbers of the training studies with which unseen ones are compared; kept without identifiers."""
_MOST_FILES, _MOST_BYTES = 10_000, 20_000_000_000
_UNSEEN = "-1"
"""Key of the gates for unseen studies in ``gates.json``."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BY_FOLD = {"embed", "joint"}
"""Stages whose folds are artefacts of their own."""


class BundleInfo(BaseModel):
    """``bundle.json``: what a bundle holds.

    Attributes:
        format: Version of this format.
        name: Name of the model.
        version: Version of rsna_seq that wrote the bundle.
        licence: Licence of the weights, in the words of the person who wrote the bundle.
        weights: ``float32``, or ``float16`` if matrices were rounded to half precision.
        phantoms_only: The run has seen phantoms and no patient.
        training: Numbers of studies, slices and patients that the run was trained on.
        stages: Content digest of each stage of the run.
        files: BLAKE3 of each file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    name: str
    version: str
    licence: str
    weights: str
    phantoms_only: bool
    training: dict[str, int]
    stages: dict[str, str]
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """BLAKE3 of this description, and so of the whole content of the bundle."""
        return blake3(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


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


def is_bundle(path: Path) -> bool:
    """Whether a path is a file that is named as bundles are."""
    return path.suffix == SUFFIX and path.is_file()


def write_bundle(
    run: RunFolder,
    out: Path,
    *,
    training: TrainingSummary,
    card: str,
    name: str,
    licence: str,
    half: bool = False,
) -> BundleInfo:
    """Write a finished run as a bundle.

    Args:
        run: The run, with ``2_cache`` to ``5_stack`` finished.
        out: The zip file; it must not exist, or be this bundle already.
        training: What is kept of the training data.
        card: Text of the model card, in Markdown.
        name: Name of the model.
        licence: Licence of the weights.
        half: Round weight matrices to half precision; this halves the size and changes logits slightly.

    Raises:
        UsageError: ``out`` does not end in ``.zip``, or another file is there.
        IntegrityError: A stage is not finished or damaged.
    """
    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out}: a bundle's name ends in {SUFFIX}")
    artifacts = run.open("cache", *_stages(run))
    files = _stage_files(run, artifacts, training, half=half)
    config = run.path / "config.yaml"
    files |= {CARD: card.encode()} | ({"config.yaml": _without_paths(config)} if config.is_file() else {})
    info = BundleInfo(
        name=name,
        version=package_version(),
        licence=licence,
        weights="float16" if half else "float32",
        phantoms_only=training.phantoms_only,
        training=training.counts,
        stages={stage: artifact.manifest.content for stage, artifact in artifacts.items()},
        files={path: blake3(data).hexdigest() for path, data in sorted(files.items())},
    )
    packed = _packed({INFO: _json(info.model_dump(mode="json")), **files})
    if not os.path.lexists(out):
        write_bytes(out, packed)
    elif not out.is_file() or out.read_bytes() != packed:
        raise UsageError(f"--out {out}: exists with other content; move it, or choose another name")
    return info


def _without_paths(config: Path) -> bytes:
    """The config of a run without the section on its data, whose paths may name a hospital or a person."""
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    kept = {name: section for name, section in tree.items() if name != "data"}
    return yaml.safe_dump(kept, sort_keys=False).encode()


def read_bundle(file: Path) -> BundleInfo:
    """Read and check the description of a bundle.

    Raises:
        IntegrityError: The file is not a bundle, is damaged, or lists files that no bundle may hold.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            held = {entry.filename: entry.file_size for entry in archive.infolist()}
            info = BundleInfo.model_validate_json(archive.read(INFO))
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such bundle") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValidationError, ValueError, NotImplementedError) as error:
        raise IntegrityError(f"{file}: not a bundle, or damaged ({type(error).__name__})") from error
    if info.format != 1:
        raise IntegrityError(f"{file}: bundle format {info.format}; this version reads format 1")
    wrong = [name for name in info.files if not _allowed(name)]
    missing = sorted(set(info.files) - set(held)) + sorted(set(held) - set(info.files) - {INFO})
    if wrong or missing or len(held) > _MOST_FILES or sum(held.values()) > _MOST_BYTES:
        raise IntegrityError(f"{file}: its list of files is not that of a bundle: {[*wrong, *missing][:3]}")
    return info


def extract_bundle(file: Path, folder: Path) -> BundleInfo:
    """Write the files of a bundle into a folder, each compared with its digest.

    Args:
        file: The bundle.
        folder: An empty folder; afterwards it is read as the folder of a run.

    Raises:
        IntegrityError: The bundle is damaged.
        EnvironmentFaultError: The disk is full.
    """
    info = read_bundle(file)
    with zipfile.ZipFile(file) as archive:
        for name, digest in info.files.items():
            try:
                data = archive.read(name)
            except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise IntegrityError(f"{file}: {name}: damaged ({type(error).__name__})") from error
            if blake3(data).hexdigest() != digest:
                raise IntegrityError(f"{file}: {name}: damaged, its digest differs from {INFO}")
            write_bytes(folder / name, data, sync=False)
    return info


def _allowed(name: str) -> bool:
    """Whether a name stays inside the folder and is of a kind that a bundle may hold."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
    return inside and path.suffix in _KINDS


def _stages(run: RunFolder) -> list[str]:
    """The learned stages that ``predict`` reads; ``joint`` only if a result of the stack depends on it."""
    stack = open_artifact(run["stack"])
    saved = json.loads(stack.file("gates.json").read_text(encoding="utf-8"))
    boosted = any(saved["gates"][_UNSEEN].values()) and "joint" in stack.manifest.config["sources"]
    averaged = any(saved.get("joint", {}).get(_UNSEEN, {}).values())
    return ["embed", "sequence", *(["joint"] if boosted or averaged else []), "stack"]


def _stage_files(
    run: RunFolder, artifacts: Mapping[str, Artifact], training: TrainingSummary, *, half: bool
) -> dict[str, bytes]:
    """The files of all stages with new manifests, by path in the bundle."""
    table = _json(asdict(training))
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
    for name in artifact.manifest.files:
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
    return files | {f"{where}/{MANIFEST}": _json(manifest.model_dump(mode="json"))}, manifest


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _packed(files: Mapping[str, bytes]) -> bytes:
    """A zip file of these files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            text = not name.endswith(".safetensors")  # weights do not compress
            entry.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED
            archive.writestr(entry, files[name], compresslevel=9)
    return buffer.getvalue()


def read_training(file: Path) -> TrainingSummary:
    """Read ``training.json`` of an extracted bundle."""
    return TrainingSummary(**json.loads(file.read_text(encoding="utf-8")))
