"""``state.pt``: what an interrupted training needs to resume, with its digest."""

import io
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3

from rsna_seq.errors import IntegrityError
from rsna_seq.store.files import write_bytes

_DIGEST_BYTES = 32


def write_state(file: Path, state: dict[str, Any]) -> None:
    """Write what a resumed training needs, with its digest."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_bytes(file, blake3(content).digest() + content)


def read_state(file: Path, device: torch.device) -> dict[str, Any] | None:
    """Read what :func:`write_state` wrote; None if there is no such file.

    Raises:
        IntegrityError: The file is damaged.
    """
    if not file.is_file():
        return None
    content = file.read_bytes()
    digest, state = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if blake3(state).digest() != digest:
        raise IntegrityError(f"{file}: damaged; use --rebuild to train again from the first epoch")
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location=device, weights_only=True)
    return loaded
