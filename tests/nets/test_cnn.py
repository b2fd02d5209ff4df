from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.metrics import log_loss as sk_log_loss

from rsna_seq.config import EmbedConfig
from rsna_seq.errors import EnvironmentFaultError, IntegrityError, UsageError
from rsna_seq.nets.cnn import Embedder, load_embedder, weighted_bce, window_stack
from rsna_seq.nets.pretrained import PACKAGE, spread_first_conv

SCRATCH = EmbedConfig(backbone="resnet10t", pretrained=False)


def test_windows_map_their_range_to_minus_one_to_one() -> None:
    hu = torch.tensor([-1000.0, 0, 40, 80, 3000]).view(1, 1, 1, 5)
    stack = window_stack(hu, torch.tensor([[40.0, 80.0]]))
    assert stack.flatten().tolist() == [-1, -1, 0, 1, 1]


def test_channels_are_slices_times_windows() -> None:
    windows = torch.tensor(EmbedConfig().windows)
    hu = torch.arange(3.0).view(1, 3, 1, 1) * 10
    stack = window_stack(hu, windows)
    assert stack.shape == (1, 9, 1, 1)
    assert torch.equal(stack[:, 3:6], window_stack(hu[:, 1:2], windows))


def test_a_compiled_network_gives_the_same_output_and_has_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def compiler(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        calls.append(module)
        return module.forward

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=compiler))
    net = Embedder(EmbedConfig(backbone="test_resnet", pretrained=False, compile=True)).eval()
    hu = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        plain = net.on(torch.device("cpu"))(hu)
        assert not calls
        names = list(net.state_dict())
        compiled = net.on(torch.device("cpu"), compiled=True)(hu)
    assert calls
    assert list(net.state_dict()) == names
    torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_spread_filter_responds_to_a_constant_study_like_the_image_filter(slices: int) -> None:
    weight = torch.randn(4, 3, 3, 3)
    wide = spread_first_conv(weight, slices, 3)
    image = torch.randn(2, 3, 8, 8)
    expected = torch.nn.functional.conv2d(image, weight)
    found = torch.nn.functional.conv2d(image.repeat(1, slices, 1, 1), wide)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    centre = wide.view(4, slices, 3, 3, 3)[:, slices // 2].abs().sum()
    assert centre > wide.abs().sum() / 2


def test_package_weights_reach_every_layer() -> None:
    net = Embedder(EmbedConfig(backbone="efficientnet_lite0", pretrained=PACKAGE))
    plain = timm.create_model("efficientnet_lite0")
    ours, theirs = net.backbone.state_dict(), plain.state_dict()
    trained = [k for k in ours if ours[k].ndim == 4 and k != "conv_stem.weight"]
    assert len(trained) > 40
    assert not any(torch.equal(ours[k], theirs[k]) for k in trained)
    assert net(torch.zeros(2, 3, 64, 64))[0].shape == (2, 1280)


def test_package_weights_refuse_another_backbone() -> None:
    with pytest.raises(UsageError, match="efficientnet_lite0"):
        Embedder(EmbedConfig(backbone="resnet18", pretrained=PACKAGE))


def test_hub_weights_without_internet_access_name_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(EnvironmentFaultError, match=PACKAGE):
        Embedder(EmbedConfig(pretrained=True))


def test_the_phantom_weights_cover_the_whole_embedder_and_differ_from_imagenet() -> None:
    net = Embedder(EmbedConfig(pretrained="phantom"))
    image = Embedder(EmbedConfig(pretrained=PACKAGE)).state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in net.state_dict().values())
    ours = net.state_dict()
    changed = [k for k in ours if k.endswith("weight") and not torch.allclose(ours[k], image[k], atol=1e-3)]
    assert len(changed) > 50


@pytest.mark.parametrize("change", [{"neighbours": 0}, {"backbone": "resnet18"}, {"windows": ((40, 80),)}])
def test_the_phantom_weights_refuse_another_network(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="phantom"):
        Embedder(EmbedConfig(pretrained="phantom").model_copy(update=change))


def test_initial_weights_are_read_from_a_file(tmp_path: Path) -> None:
    model = timm.create_model("resnet10t")
    save_file(model.state_dict(), tmp_path / "start.safetensors")
    net = Embedder(SCRATCH.model_copy(update={"pretrained": tmp_path / "start.safetensors", "neighbours": 0}))
    assert torch.equal(
        net.backbone.state_dict()["layer1.0.conv1.weight"], model.state_dict()["layer1.0.conv1.weight"]
    )


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"x": 1}, file)
    with pytest.raises(IntegrityError, match="safetensors"):
        Embedder(SCRATCH.model_copy(update={"pretrained": file}))
    with pytest.raises(IntegrityError):
        load_embedder(SCRATCH, file)


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(UsageError, match="no_such_net"):
        Embedder(EmbedConfig(backbone="no_such_net", pretrained=False))


def test_loss_is_the_weighted_log_loss_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 6)), random.integers(0, 2, (50, 6))
    ours = float(weighted_bce(torch.tensor(logits), torch.tensor(labels, dtype=torch.float64)))
    p = 1 / (1 + np.exp(-logits))
    each = [sk_log_loss(labels[:, c], p[:, c], labels=[0, 1]) for c in range(6)]
    assert ours == pytest.approx(np.average(each, weights=[1, 1, 1, 1, 1, 2]), abs=1e-9)
