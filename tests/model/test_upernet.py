"""`model/upernet.py`: the parts put together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from upernet.config import ModelConfig
from upernet.contract import Task
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.tasks.dense import DenseTask
from upernet.tasks.image import ImageTask

LABELS = ["a", "b", "c"]


def tasks() -> dict[str, Task]:
    return {
        "what": DenseTask(labels=LABELS, convs=0),
        "where": ImageTask(labels=["x", "y"], width=8),
        "surface": DenseTask(labels=LABELS, level="c2", width=8, detach=True),
        "helper": DenseTask(labels=LABELS, level="c4", width=8, auxiliary=True),
    }


def network(backbone: str = "test_resnet", **options: Any) -> UPerNet:
    torch.manual_seed(0)
    return UPerNet(ModelConfig(backbone=backbone, width=8, **options), tasks())


def test_all_tasks_in_training_all_but_auxiliary_in_evaluation() -> None:
    model, image = network(), torch.rand(2, 3, 64, 96)
    assert list(model.train()(image)) == ["what", "where", "surface", "helper"]
    assert list(model.eval()(image)) == ["what", "where", "surface"]
    assert list(model.eval()(image, ["helper", "where"])) == ["helper", "where"]
    assert model(image, []) == {}


def test_logits_at_the_stride_of_the_level() -> None:
    logits = network().eval()(torch.rand(2, 3, 64, 96), tasks())
    shapes = {name: tuple(x.shape) for name, x in logits.items()}
    assert shapes == {"what": (2, 3, 16, 24), "where": (2, 2), "surface": (2, 3, 16, 24), "helper": (2, 3, 4, 6)}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("options", [{}, {"level_norm": True, "pooling": "precise", "ppm_order": "upsample_conv"}])
def test_odd_sizes_train_with_one_image(backbone: str, options: dict[str, Any]) -> None:
    model = network(backbone, **options).train()
    logits = model(torch.rand(1, 3, 33, 97))
    sum(x.float().square().mean() for x in logits.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_image_is_normalised_inside() -> None:
    model = network(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).eval()
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.full((1, 3, 32, 32), 0.7))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.6 / 0.5, 0.5 / 0.6, 0.4 / 0.7]))
    assert not {"mean", "std"} & model.state_dict().keys()


def test_detached_task_trains_its_head_alone() -> None:
    model = network().train()
    model(torch.rand(2, 3, 64, 64), ["surface"])["surface"].square().mean().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {f"heads.surface.{name}" for name, _ in model.heads["surface"].named_parameters()}


def test_head_not_asked_for_gets_no_gradient() -> None:
    model = network().train()
    model(torch.rand(2, 3, 64, 64), ["where"])["where"].square().mean().backward()
    trained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and "heads." in name}
    assert trained == {"where"}
    assert all(p.grad is None for p in model.decoder.fusion.parameters())
    assert next(model.backbone.parameters()).grad is not None


def test_tasks_do_not_disturb_one_another() -> None:
    model, image = network().eval(), torch.rand(1, 3, 64, 64)
    together = model(image)
    for name, logits in together.items():
        assert torch.equal(model(image, [name])[name], logits)


def test_images_of_a_batch_do_not_disturb_one_another() -> None:
    model, image = network().eval(), torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(model(image)["what"][1:2], model(image[1:2])["what"], atol=1e-6, rtol=1e-4)


def test_unknown_task_is_told() -> None:
    with pytest.raises(UserError, match=r"'wat'.*what, where"):
        network()(torch.rand(1, 3, 64, 64), ["wat"])


@pytest.mark.parametrize(
    ("name", "level", "part"), [("what", "p9", "fused"), ("a.b", "fused", "a.b"), ("keys", "fused", "keys")]
)
def test_bad_tasks_are_told(name: str, level: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        UPerNet(ModelConfig(backbone="test_resnet", width=8), {name: DenseTask(labels=LABELS, level=level)})


@pytest.mark.parametrize(("classes", "total", "entries"), [(150, 66_516_108, 412), (19, 66_415_238, 412)])
def test_parameters_of_the_published_network(classes: int, total: int, entries: int) -> None:
    labels = [str(i) for i in range(classes)]
    model = UPerNet(
        ModelConfig(),
        {
            "semantic": DenseTask(labels=labels, convs=0),
            "auxiliary": DenseTask(labels=labels, level="c4", convs=1, width=256),
        },
    )
    assert count(model) == total
    assert count(model.backbone) == 23_527_264
    assert len(model.state_dict()) == entries


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {}),
        ("test_convnext", {"level_norm": True, "pooling": "precise", "align_corners": True, "pool_scales": (1, 2)}),
        ("test_vit", {"ppm_order": "upsample_conv", "pool_scales": (3,)}),
    ],
)
def test_exports_with_symbolic_sizes(backbone: str, options: dict[str, Any]) -> None:
    model, any_size = network(backbone, **options).eval(), torch.export.Dim.DYNAMIC
    sizes = {"image": {0: any_size, 2: any_size, 3: any_size}}
    exported = torch.export.export(model, (torch.rand(2, 3, 96, 160),), dynamic_shapes=sizes).module()
    for batch, height, width in ((1, 64, 64), (3, 65, 97), (1, 77, 128), (2, 160, 160), (1, 192, 101)):
        image = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            ours, theirs = model(image), exported(image)
        assert ours.keys() == theirs.keys()
        for name, logits in ours.items():
            torch.testing.assert_close(theirs[name], logits, rtol=0, atol=1e-5 * logits.std().item())


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
