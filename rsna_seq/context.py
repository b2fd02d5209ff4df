"""How a stage runs: data, seed, device, processes; nothing that belongs to the method."""

import os
from dataclasses import dataclass, field

from rsna_seq.config import Config, DataConfig


@dataclass(frozen=True)
class Context:
    """What every stage is given beside its own section of the config.

    Attributes:
        data: Images and labels.
        seed: Seed of everything random.
        device: ``auto`` or a torch device.
        workers: Processes for DICOM files and, on a GPU, threads for reading batches ahead.
        limit: Process at most this many studies.
        rebuild: Rebuild the artefact, trained weights included, even if it is up to date.
    """

    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    device: str = "auto"
    workers: int = 1
    limit: int | None = None
    rebuild: bool = False

    @classmethod
    def of(cls, cfg: Config, *, rebuild: bool = False) -> "Context":
        """The context that a config describes; 0 workers means one per core."""
        workers = cfg.workers or os.cpu_count() or 1
        return cls(cfg.data, cfg.seed, cfg.device, workers, cfg.limit, rebuild)

    @property
    def key(self) -> dict[str, int | None]:
        """The parts on which results depend, for the key of an artefact."""
        return {"seed": self.seed, "limit": self.limit}
