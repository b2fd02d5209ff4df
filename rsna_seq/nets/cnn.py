"""Embedder: a 2.5D timm CNN whose input channels are neighbouring slices times windows.

(n, slice, y, x) HU -> windows, applied on the device -> (n, slice * window, y, x) in -1..1 -> backbone
-> (n, feature) vectors -> (n, 6) logits.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rsna_seq.config import EmbedConfig
from rsna_seq.errors import IntegrityError
from rsna_seq.labels import CLASS_WEIGHTS, N_CLASSES
from rsna_seq.nets.pretrained import PHANTOM, build_backbone, load_phantom_start


def window_stack(hu: Tensor, windows: Tensor) -> Tensor:
    """Apply windows to HU, on the device of the input.

    Args:
        hu: (n, slice, y, x) HU, float.
        windows: (window, 2) level and width in HU.

    Returns:
        (n, slice * window, y, x) in -1..1: -1 at the lower edge of the window and below, 1 at the upper edge
        and above.
    """
    level, width = windows[:, 0].view(-1, 1, 1), windows[:, 1].view(-1, 1, 1)
    return ((hu[:, :, None] - level) / (width / 2)).clamp(-1, 1).flatten(1, 2)


class Embedder(nn.Module):
    """CNN that maps each slice to a feature vector and six logits.

    Args:
        cfg: Backbone, windows, neighbours.
        start: Load the pretrained weights named in the config; pass False if trained weights are loaded
            afterwards.
    """

    def __init__(self, cfg: EmbedConfig, *, start: bool = True) -> None:
        super().__init__()
        self.cfg = cfg
        self.backbone = build_backbone(cfg, start=start)
        self.features = int(self.backbone.num_features)  # type: ignore[arg-type]
        head = getattr(self.backbone, "head_hidden_size", None)
        self.features = int(head) if head else self.features
        self.drop = nn.Dropout(cfg.dropout)
        self.classify = nn.Linear(self.features, N_CLASSES)
        self.register_buffer("windows", torch.tensor(cfg.windows, dtype=torch.float32), persistent=False)
        self.windows: Tensor
        if start and cfg.pretrained == PHANTOM:
            load_phantom_start(self)

    def on(self, device: torch.device, *, compiled: bool = False) -> "Embedder":
        """Move this network to a device, in channels-last layout, and return it.

        Args:
            device: Device to move to.
            compiled: Compile the backbone in place if the config asks for it.
        """
        if compiled and self.cfg.compile:
            self.backbone.compile()
        return self.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """Embed slices.

        Args:
            hu: (n, 2 * neighbours + 1, y, x) HU; the centre slice is in the middle.

        Returns:
            (n, feature) vectors and (n, 6) logits.
        """
        return self.embed(self.windowed(hu))

    def windowed(self, hu: Tensor) -> Tensor:
        """Resize slices to the network's input size and apply the windows.

        Args:
            hu: (n, slice, y, x) HU.

        Returns:
            (n, slice * window, y, x) in -1..1.
        """
        size = self.cfg.size
        if size is not None and hu.shape[-1] != size:
            hu = F.interpolate(hu, (size, size), mode="bilinear", antialias=True)
        return window_stack(hu, self.windows)

    def embed(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Embed windowed slices.

        Args:
            stack: (n, (2 * neighbours + 1) * window, y, x), as returned by :meth:`windowed`.

        Returns:
            (n, feature) vectors and (n, 6) logits.
        """
        vectors: Tensor = self.backbone(stack.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.classify(self.drop(vectors))
        return vectors.float(), logits.float()

    def embed_within_memory(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Run :meth:`embed`, and split the batch in halves if the device runs out of memory."""
        try:
            return self.embed(stack)
        except torch.OutOfMemoryError:
            if len(stack) == 1:
                raise
            torch.cuda.empty_cache()
            halves = [self.embed_within_memory(half) for half in stack.chunk(2)]
            return torch.cat([v for v, _ in halves]), torch.cat([z for _, z in halves])


def weighted_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the competition's loss: binary cross-entropy, weight 2/7 for ``any`` and 1/7 per other class.

    Args:
        logits: (n, 6).
        labels: (n, 6) of 0..1.

    Returns:
        Scalar, the mean over the first axis.
    """
    weights = torch.tensor(CLASS_WEIGHTS, dtype=logits.dtype).to(logits.device, non_blocking=logits.is_cuda)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum(1).mean()  # not a matrix product: autocast would compute it in bf16


def load_embedder(cfg: EmbedConfig, file: Path) -> Embedder:
    """Build an embedder, load trained weights and set evaluation mode.

    Raises:
        IntegrityError: The file is missing, damaged, or belongs to another network.
    """
    embedder = Embedder(cfg, start=False)
    load_weights(embedder, file)
    return embedder.eval()


def load_weights(net: nn.Module, file: Path) -> None:
    """Load a safetensors file into a network.

    Raises:
        IntegrityError: The file is missing, damaged, or belongs to another network.
    """
    try:
        net.load_state_dict(load_file(file))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise IntegrityError(
            f"{file}: the weights do not fit this network ({type(error).__name__}); rebuild the stage"
        ) from error
    except Exception as error:  # safetensors raises its own error type
        raise IntegrityError(f"{file}: not a safetensors file; pickled weights are never opened") from error
