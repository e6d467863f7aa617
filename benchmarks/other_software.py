"""Does other software answer the same? Its models opened here, and models written for it opened there.

In an environment of its own, beside `mmsegmentation mmcv-lite==2.1.0 mmengine mmpretrain ftfy regex transformers
segmentation-models-pytorch`:

    python benchmarks/other_software.py answer FOLDER        (there) models of MMSegmentation, their files and answers
    python benchmarks/other_software.py compare FOLDER       (here)  the largest differences, and files written for them
    python benchmarks/other_software.py open FOLDER          (there) these files opened, and the largest differences
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

TOOLBOX: dict[str, tuple[dict[str, object], list[int]]] = {
    "R-18 V1c": ({"type": "ResNetV1c", "depth": 18}, [64, 128, 256, 512]),
    "ResNeXt-50": ({"type": "ResNeXt", "depth": 50, "groups": 32, "base_width": 4}, [256, 512, 1024, 2048]),
    "R-50 V1d": ({"type": "ResNetV1d", "depth": 50}, [256, 512, 1024, 2048]),
    "Swin-T": ({"type": "SwinTransformer"}, [96, 192, 384, 768]),
    "ConvNeXt-T": (
        {"type": "mmpretrain.ConvNeXt", "arch": "tiny", "out_indices": [0, 1, 2, 3], "gap_before_final_norm": False},
        [96, 192, 384, 768],
    ),
}
SIZE = (150, 203)

RESNET = {"channels": [16, 32, 64, 128]}
SWIN = {"depths": [2, 2, 2, 2], "embed_dim": 32, "num_heads": [1, 2, 4, 8], "window_size": 12}
CONVNEXT = {"depths": [1, 2, 3, 1], "dims": [16, 32, 64, 128]}
BACKBONES: dict[str, tuple[str, dict[str, object]]] = {
    "R-18": ("resnet18", {}),
    "R-50": ("resnet50", {}),
    "R-50, narrow": ("resnet50", RESNET),
    "R-50 V1c": ("resnet50c", {}),
    "R-50 V1c, narrow": ("resnet50c", RESNET),
    "R-50, 64-64-128": ("resnet50s", {}),
    "R-50 V1d": ("resnet50d", {}),
    "ResNeXt-50": ("resnext50_32x4d", {}),
    "ResNeXt-50, narrow": ("resnext50_32x4d", RESNET),
    "ResNeXt-50 V1d": ("resnext50d_32x4d", {}),
    "ConvNeXt-T": ("convnext_tiny", {}),
    "ConvNeXt, narrow": ("convnext_tiny", CONVNEXT),
    "Swin-T": ("swin_tiny_patch4_window7_224", {}),
    "Swin, narrow": ("swin_tiny_patch4_window7_224", SWIN),
}
"""What is written for all three, each of which refuses some."""


def randomise(model: torch.nn.Module) -> None:
    """Weights that keep activations near unit size, and statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(noise.abs() * 0.1 + 0.9)
        elif value.ndim > 1:
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            value.copy_(noise * 0.1 + 0.8)
        else:
            value.copy_(noise * 0.1)


def answer(folder: Path) -> None:
    """Build the toolbox's UPerNets, and save each with its answer to one image."""
    sys.modules["mmcv._ext"] = mock.MagicMock()  # compiled operations that no UPerNet uses
    import mmpretrain.models  # noqa: F401
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    folder.mkdir(parents=True, exist_ok=True)
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for name, (backbone, channels) in TOOLBOX.items():
        shared = {"num_classes": 150, "norm_cfg": {"type": "BN"}, "align_corners": False}
        head = {"type": "UPerHead", "in_channels": channels, "in_index": [0, 1, 2, 3], "channels": 64, **shared}
        aux = {"type": "FCNHead", "in_channels": channels[2], "in_index": 2, "channels": 32, "num_convs": 1}
        config = {
            "type": "EncoderDecoder",
            "backbone": backbone,
            "decode_head": head,
            "auxiliary_head": {**aux, "concat_input": False, **shared},
            "test_cfg": {"mode": "whole"},
        }
        model = MODELS.build(config).eval()
        randomise(model)
        with torch.no_grad():
            features = model.extract_feat(x)
            answers = {"semantic": model.decode_head(features), "auxiliary": model.auxiliary_head(features)}
        torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / f"{name}.pth")
        torch.save({"x": x, **answers}, folder / f"{name}.answer")


def compare(folder: Path) -> None:
    """Open what `answer` saved, then write every backbone for each of the three with our own answers beside them."""
    import upernet
    from upernet.config import InferenceConfig, ModelConfig
    from upernet.errors import UserError
    from upernet.model.build import build_model
    from upernet.store.foreign import write_foreign
    from upernet.tasks import Semantic

    for name in TOOLBOX if (folder / "R-18 V1c.pth").is_file() else ():
        model = upernet.load(folder / f"{name}.pth", reference=True).model
        saved = torch.load(folder / f"{name}.answer", weights_only=True)
        with torch.inference_mode():
            ours = model(saved["x"] * model.std + model.mean, ["semantic", "auxiliary"])
        differences = [f"{task} {difference(ours[task], saved[task]):.1e}" for task in ours]
        print(f"mmseg {name} ({model.config.backbone}): {', '.join(differences)}", flush=True)
    x = torch.randn(1, 3, 160, 224, generator=torch.Generator().manual_seed(2))
    for to in ("mmseg", "huggingface", "smp"):
        for name, (backbone, args) in BACKBONES.items():
            transformer = "wi" in name or "ConvNeXt" in name
            tasks = {"semantic": Semantic(labels="ade20k")}
            if to != "smp":
                head = {"level": "c4", "convs": 1, "width": 32, "target": "semantic"}
                tasks["auxiliary"] = Semantic(labels="ade20k", auxiliary=True, **head)
            config = ModelConfig(
                backbone=backbone,
                backbone_args=args,
                width=64,
                level_norm=to == "smp" or transformer,
                level_norm_eps=1e-5 if "Swin" in name and to != "smp" else 1e-6,
                logits_align_corners=True if to == "smp" else None,
            )
            model = build_model(config, tasks).eval()
            randomise(model)
            place = folder / f"{to} {name}{'.pth' if to == 'mmseg' else ''}"
            try:
                write_foreign(place, to, model, tasks, InferenceConfig(short_side=512))
            except UserError as error:
                print(f"not written: {error}", flush=True)
                continue
            with torch.inference_mode():
                logits = model(x * model.std + model.mean, list(tasks))
            torch.save({"x": x, "corners": model.upsampling_align_corners, **logits}, folder / f"{to} {name}.written")
            print(f"written: {place}", flush=True)


def open_there(folder: Path) -> None:
    """Open what `compare` wrote with the libraries it was written for, and compare logits at the image's size."""
    sys.modules["mmcv._ext"] = mock.MagicMock()
    for path in sorted(folder.glob("*.written")):
        saved = torch.load(path, weights_only=True)
        open_it = {"mmseg": open_mmseg, "huggingface": open_hugging_face, "smp": open_smp}[path.stem.split()[0]]
        with torch.no_grad():
            theirs = open_it(path.with_suffix(""), saved["x"])
        differences = []
        for task, answer_there in theirs.items():
            size = tuple(answer_there.shape[2:])
            ours = torch.nn.functional.interpolate(saved[task], size, mode="bilinear", align_corners=saved["corners"])
            differences.append(f"{task} {difference(answer_there, ours):.1e}")
        print(f"{path.stem}: {', '.join(differences)}", flush=True)


def open_mmseg(place: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Built from the configuration in the file, as `mmseg.apis.init_model` does; its own test pipeline is built too."""
    import mmseg.datasets
    import mmseg.models  # noqa: F401
    from mmengine.config import Config
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope
    from mmengine.runner import load_checkpoint
    from mmseg.registry import MODELS

    file = f"{place}.pth"
    config = Config.fromstring(torch.load(file, weights_only=True)["meta"]["cfg"], ".py")
    init_default_scope(config.default_scope)
    Compose(config.test_pipeline)
    model = MODELS.build(config.model).eval()
    load_checkpoint(model, file, strict=True)
    features = model.extract_feat(x)
    return {"semantic": model.decode_head(features), "auxiliary": model.auxiliary_head(features)}


def open_hugging_face(place: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """As `from_pretrained` does, its image processor too; nothing may be missing or left over."""
    from transformers import AutoImageProcessor, UperNetForSemanticSegmentation

    model, told = UperNetForSemanticSegmentation.from_pretrained(str(place), output_loading_info=True)
    assert not any(told.values()), told
    assert AutoImageProcessor.from_pretrained(str(place)).size["height"] == 512
    logits = model.eval()(x).logits
    return {"semantic": logits, "auxiliary": model.auxiliary_head(model.backbone(x).feature_maps)}


def open_smp(place: Path, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """As its `from_pretrained` does, which is strict."""
    import segmentation_models_pytorch as smp

    return {"semantic": smp.from_pretrained(str(place)).eval()(x)}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in standard deviations of the second."""
    return ((a - b).abs().max() / b.std()).item()


if __name__ == "__main__":
    {"answer": answer, "compare": compare, "open": open_there}[sys.argv[1]](Path(sys.argv[2]))
