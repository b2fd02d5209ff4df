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
from pathlib import Path, PurePosixPath

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from rsna_seq.errors import IntegrityError, UsageError
from rsna_seq.store.bundle_content import TrainingSummary, config_of, json_bytes, kept_stages, stage_files
from rsna_seq.store.files import write_bytes
from rsna_seq.store.provenance import package_version
from rsna_seq.store.run_folder import RunFolder

SUFFIX = ".zip"
INFO, CARD = "bundle.json", "MODEL_CARD.md"
_KINDS = {".safetensors", ".json", ".txt", ".md", ".yaml", ".parquet", ".npy"}
"""Kinds of files that a bundle may hold: weights, plain text, and tables of numbers."""
_MOST_FILES, _MOST_BYTES = 10_000, 20_000_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)


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
    artifacts = run.open("cache", *kept_stages(run))
    files = stage_files(run, artifacts, training, half=half) | {CARD: card.encode()} | config_of(run)
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
    packed = _packed({INFO: json_bytes(info.model_dump(mode="json")), **files})
    if not os.path.lexists(out):
        write_bytes(out, packed)
    elif not out.is_file() or out.read_bytes() != packed:
        raise UsageError(f"--out {out}: exists with other content; move it, or choose another name")
    return info


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
