"""Small networks, and files of other software that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.contract import Task
from upernet.data.sets.broden_plus import broden_plus
from upernet.model import UPerNet
from upernet.model.build import build_model, for_inference
from upernet.store.dialects import csail, mmseg
from upernet.store.dialects.base import flip_stem
from upernet.store.native import save_model
from upernet.tasks import Material, Object, Part, Scene, Semantic

RESNET = {"channels": [8, 16, 32, 64]}
DEEP = {**RESNET, "stem_type": "deep", "stem_width": 4}
CONVNEXT = {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]}
SWIN = {"depths": [2, 2, 2, 2], "embed_dim": 8, "num_heads": [1, 2, 4, 8], "window_size": 4}
SWIN_NAME = "swin_tiny_patch4_window7_224"
LABELS = {"sky": "#87ceeb", "road": "#804080", "car": "#1e56d6"}


def network(config: ModelConfig, auxiliary: bool = True, **head: Any) -> tuple[UPerNet, dict[str, Task]]:
    """A network, not to be changed, and its tasks.

    Every tensor is random, statistics too, so that no two can be mistaken for one another. Equal ones are built once.
    """
    key = repr((config, auxiliary, head))
    if key not in _built:
        model, tasks = _build(config, auxiliary, head)
        _built[key] = model, tasks, _versions(model)
    model, tasks, versions = _built[key]
    assert _versions(model) == versions, "an earlier test has changed this network"
    return model, dict(tasks)


_built: dict[str, tuple[UPerNet, dict[str, Task], list[int]]] = {}


def _versions(model: UPerNet) -> list[int]:
    """How often each tensor was written to."""
    return [value._version for value in model.state_dict().values()]


def _build(config: ModelConfig, auxiliary: bool, head: dict[str, Any]) -> tuple[UPerNet, dict[str, Task]]:
    tasks: dict[str, Task] = {"semantic": Semantic(labels=LABELS, **head)}
    if auxiliary:
        tasks["auxiliary"] = Semantic(
            labels=LABELS, level="c4", convs=1, width=8, target="semantic", weight=0.4, auxiliary=True
        )
    torch.manual_seed(0)
    model = for_inference(build_model(config, tasks))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.25)
            if value.ndim > 1:
                value.mul_(4 / value[0].numel())
        else:
            value.fill_(len(name))
    return model, tasks


def toolbox(kind: str) -> ModelConfig:
    """A network that MMSegmentation can hold: `deep` (ResNet with a deep stem), `plain`, `convnext` or `swin`."""
    name, args = {
        "deep": ("resnet50", DEEP),
        "plain": ("resnet18", {**RESNET}),
        "convnext": ("convnext_tiny", CONVNEXT),
        "swin": (SWIN_NAME, SWIN),
    }[kind]
    level_norm = kind in ("convnext", "swin")
    return ModelConfig(
        backbone=name,
        backbone_args=args,
        width=8,
        pool_scales=(1, 2),
        align_corners=kind == "deep",
        level_norm=level_norm,
        level_norm_eps=1e-5 if kind == "swin" else 1e-6,
    )


def same(a: UPerNet, b: UPerNet) -> bool:
    """Equal to the bit, names and values."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def saved(tmp_path: Path, model: UPerNet, tasks: dict[str, Task]) -> Path:
    """Its model folder, `ours`."""
    save_model(tmp_path / "ours", model, tasks, InferenceConfig(short_side=64, max_side=256))
    return tmp_path / "ours"


def toolbox_file(path: Path, config: ModelConfig, text: str = "", tensors: dict[str, Tensor] | None = None) -> Path:
    """A checkpoint of MMSegmentation.

    Args:
        path: Where it is written.
        config: The network.
        text: Its configuration, Python.
        tensors: What stands there for the network's tensors.
    """
    if tensors is None:
        tensors, _ = mmseg.write(*network(config), InferenceConfig())
    meta = {"config": text, "CLASSES": ("sky", "road", "car"), "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    torch.save({"meta": meta, "state_dict": tensors}, path)
    return path


def change_json(path: Path, **change: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def authors_pair(folder: Path, **likely: list[str]) -> list[Path]:
    """The authors' two files, named as theirs: their four tasks on Broden+ with a network of a few thousand weights.

    Args:
        folder: Where they are written.
        likely: Task → the classes of which most answers are.
    """
    tables = broden_plus()
    tasks: dict[str, Task] = {
        "scene": Scene(labels=tables["scene"], width=8),
        "object": Object(labels=tables["object"], convs=1, width=8),
        "part": Part(parts=tables["part"], convs=1, width=8),
        "material": Material(labels=tables["material"], convs=1, width=8),
    }
    args = {**DEEP, "layers": [1, 1, 1, 1]}
    config = ModelConfig(backbone="resnet18", backbone_args=args, width=8, pooling="precise", ppm_order="upsample_conv")
    torch.manual_seed(0)
    model = for_inference(build_model(config, tasks))
    for name, head in model.heads.items():
        torch.nn.init.normal_(head.classifier.weight, std=0.005)
        with torch.no_grad():
            head.classifier.bias[[tasks[name].classes.index(c) for c in likely.get(name, [])]] += 12.0
    state = flip_stem(model.state_dict())
    state["heads.scene.classifier.weight"] = state["heads.scene.classifier.weight"][:, :, None, None]
    theirs = csail._MULTITASK_TABLE.to_theirs(state, "tiny")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for half in ("encoder", "decoder"):
        own = {k.removeprefix(f"{half}."): v.contiguous() for k, v in theirs.items() if k.startswith(half)}
        paths.append(folder / f"{half}_epoch_40.pth")
        torch.save(own, paths[-1], _use_new_zipfile_serialization=False)
    return paths
