"""Files that earlier versions wrote open for ever: a folder of `tests/formats` for each, never changed.

`ROOT` in a training file stands for the folder of `fake_data.everything`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from upernet.cli import main
from upernet.data import VOC, ClassFolder, Facade
from upernet.options import read_options
from upernet.plain import to_plain
from upernet.store.loading import load_model
from upernet.tasks import CrossEntropy, Dice, Object, Part, Scene, Semantic

FORMATS = Path(__file__).parent / "formats"


def placed(name: str, root: Path, folder: Path) -> Path:
    """A training file with the data's place filled in."""
    path = folder / Path(name).name
    path.write_text((FORMATS / name).read_text().replace("ROOT", str(root)))
    return path


def keeps(new: Any, old: Any) -> bool:
    """Whether plain values hold all of earlier ones; keys that later versions have in addition do not matter."""
    if isinstance(new, dict) and isinstance(old, dict):
        return all(key in new and keeps(new[key], value) for key, value in old.items())
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(keeps, new, old))
    return bool(new == old)


# --- 0.1 ------------------------------------------------------------------------------------------------------------

LOGITS = {
    "object": [-0.0162860248, -0.0845460072, -0.186442435, -0.101468615],
    "part": [-0.023589002, -0.0136294523, -0.0557100773, 0.104730889],
    "scene": [-0.0451115668, 0.2288405, 0.116525583, 0.0111998431],
    "voc": [0.00246988004, -0.089291364, -0.00679579563, -0.0696005747],
}
"""Of version 0.1: the first logit, those after a third and half of all, and the last one."""


def test_a_model_folder_of_0_1_gives_the_same_answers() -> None:
    model, tasks, inference = load_model(FORMATS / "0.1" / "model")
    said = yaml.safe_load((FORMATS / "0.1" / "model" / "config.yaml").read_text())
    assert {name: type(task) for name, task in tasks.items()} == {
        "object": Object, "part": Part, "scene": Scene, "voc": Semantic, "auxiliary": Semantic,
    }  # fmt: skip
    assert tasks["object"].losses == [  # type: ignore[attr-defined]
        CrossEntropy(class_weights={"building": 1.176, "else": 0.87}), Dice(weight=0.5),
    ]  # fmt: skip
    assert keeps(to_plain(model.config), said["model"])
    assert keeps(to_plain(tasks), said["tasks"])
    assert keeps(to_plain(inference), said["inference"])
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = model(image)
    assert answers.keys() == LOGITS.keys()
    for name, logits in answers.items():
        flat, count = logits.flatten(), logits.numel()
        found = flat[[0, count // 3, count // 2, count - 1]].tolist()
        assert found == pytest.approx(LOGITS[name], rel=1e-4, abs=1e-5 * float(flat.abs().mean()))


def test_a_training_file_of_0_1_trains(fake_root: Path, tmp_path: Path) -> None:
    path, out = placed("0.1/train.yaml", fake_root, tmp_path), tmp_path / "run"
    words = ["--run.steps", "2", "--run.val_every", "0", "--run.out", str(out)]
    assert main(["train", "--config", str(path), *words]) == 0
    assert list(load_model(out / "model")[1]) == ["object", "part", "scene", "voc", "auxiliary"]


def test_a_resolved_configuration_of_0_1_says_the_same(fake_root: Path, tmp_path: Path) -> None:
    path = placed("0.1/resolved.yaml", fake_root, tmp_path)
    options: dict[str, Any] = read_options("train", ["--config", str(path)])
    assert keeps(to_plain(options), yaml.safe_load(path.read_text()))
    sources = options["data"].sources.values()
    assert [type(source.dataset) for source in sources] == [Facade, ClassFolder, VOC]
    written = read_options("train", ["--config", str(placed("0.1/train.yaml", fake_root, tmp_path))])
    assert {**written, "tasks": None, "run": None} == {**options, "tasks": None, "run": None}
