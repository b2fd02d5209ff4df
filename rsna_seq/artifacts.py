"""Names of ``rsna_seq.store`` under their former module."""

from rsna_seq.store.artifacts import Artifact, Key, Manifest, Receipt, open_artifact, read_manifest
from rsna_seq.store.builds import ensure
from rsna_seq.store.files import atomic_path, locked, write_json
from rsna_seq.store.outputs import MANIFEST

__all__ = [
    "MANIFEST",
    "Artifact",
    "Key",
    "Manifest",
    "Receipt",
    "atomic_path",
    "ensure",
    "locked",
    "open_artifact",
    "read_manifest",
    "write_json",
]
