"""Terms of a loss in YAML, and class weights that a run counts once, keeps and saves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_data import Memory, image_mask_folder
from PIL import Image
from torch import Tensor

from upernet.cli import main
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.folder import ImageMaskFolder
from upernet.data.frequencies import Frequencies
from upernet.data.mixture import bind_sources
from upernet.engine.class_weights import FILE, weigh_classes
from upernet.errors import WorkError
from upernet.labels import IGNORE, ClassSets
from upernet.options import read_options
from upernet.plain import from_plain, to_plain
from upernet.store.loading import load_model
from upernet.tasks import CrossEntropy, Loss, Lovasz, Semantic, Task
from upernet.tasks.dense import DenseTask


@dataclass(kw_only=True)
class Brier(Loss):
    """A stranger's term: the squared distance of the truth's probability from one."""

    power: float = 2.0

    def loss(self, log_q: Tensor, groups: Tensor, sets: ClassSets) -> Tensor:
        q = log_q.exp().gather(1, groups.clamp(min=0).unsqueeze(1)).squeeze(1)
        return ((1 - q[groups != IGNORE]) ** self.power).sum() / (groups != IGNORE).sum().clamp(min=1)


def recipe(folder: Path, losses: list[Any]) -> dict[str, Any]:
    source = {"class_path": "fake_data.Memory", "init_args": {"labels": ["a", "b", "c"]}}
    return {
        "model": {"backbone": "test_resnet", "width": 8},
        "tasks": {
            "semantic": {
                "class_path": "upernet.tasks.Semantic",
                "init_args": {"labels": ["a", "b", "c"], "losses": losses},
            }
        },
        "data": {
            "batch": 2,
            "workers": 0,
            "augment": {"crop": [32, 32]},
            "sources": {"drawn": {"dataset": source, "targets": {"semantic": {}}, "val": None}},
        },
        "run": {"out": str(folder), "steps": 1, "device": "cpu", "log_every": 1},
    }


TERMS = [
    {
        "class_path": "upernet.tasks.CrossEntropy",
        "init_args": {"average": "all", "class_weights": "inverse_frequency"},
    },
    {"class_path": "upernet.tasks.Lovasz"},
    {"class_path": f"{__name__}.Brier", "init_args": {"weight": 0.5, "power": 3.0}},
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path / "out", TERMS)))
    return path


def test_yaml_names_terms_a_strangers_too(config: Path) -> None:
    (own,) = read_options("train", ["--config", str(config)])["tasks"].values()
    assert own.losses == [
        CrossEntropy(average="all", class_weights="inverse_frequency"), Lovasz(), Brier(weight=0.5, power=3.0),
    ]  # fmt: skip
    again = from_plain(Task, yaml.safe_load(yaml.safe_dump(to_plain(own))), "here")  # type: ignore[type-abstract]
    assert again == own


def test_a_run_with_three_terms_counts_once(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, go on, evaluate: the weights are those of the first count, and the model folder holds them."""
    assert main(["train", "--config", str(config)]) == 0
    _, tasks, _ = load_model(tmp_path / "out" / "model")
    own = tasks["semantic"]
    assert isinstance(own, Semantic)
    (counts,) = yaml.safe_load((tmp_path / "out" / FILE).read_text()).values()
    masks = [Memory().read(item)[1]["given"] for item in Memory().items("train")]
    assert list(counts["pixels"].values()) == [sum(int((m == i).sum()) for m in masks) for i in range(3)]
    weights = Frequencies(**counts).weights("inverse_frequency", 0.999)
    assert own.losses == [
        CrossEntropy(average="all", class_weights=weights), Lovasz(), Brier(weight=0.5, power=3.0),
    ]  # fmt: skip
    (resolved,) = read_options("train", ["--config", str(tmp_path / "out" / "config.yaml")])["tasks"].values()
    assert resolved.losses == own.losses

    def counted(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("upernet.engine.class_weights.count_classes", counted)
    assert main(["train", "--config", str(config), "--run.steps", "2"]) == 0
    assert "resuming" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        main(["train", "--config", str(config), "--run.out", str(tmp_path / "other")])


def test_going_on_with_another_term_is_told(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(config)]) == 0
    config.write_text(yaml.safe_dump(recipe(tmp_path / "out", TERMS[1:])))
    assert main(["train", "--config", str(config), "--run.steps", "2"]) == 2
    assert "holds a run with tasks.semantic.init_args.losses" in capsys.readouterr().err


def test_what_fits_no_task_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    for term, line in (
        ({"class_path": "upernet.tasks.Focal", "init_args": {"class_weights": {"d": 2}}}, "unknown class 'd'"),
        ({"class_path": "upernet.tasks.Dice", "init_args": {"powr": 1}}, "powr"),
        ({"class_path": "upernet.tasks.Scene"}, "Scene"),
    ):
        path.write_text(yaml.safe_dump(recipe(tmp_path / "out", [term])))
        assert main(["train", "--config", str(path)]) == 2
        err = capsys.readouterr().err
        assert line in err
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_counts_of_other_classes_are_not_taken(tmp_path: Path) -> None:
    image_mask_folder(tmp_path / "town", ["a", "b"], counts={"train": 1}, size=(2, 2))
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    Image.fromarray(mask).save(tmp_path / "town" / "annotations" / "train" / "train_0.png")
    dataset = ImageMaskFolder(root=str(tmp_path / "town"), labels=["a", "b"])
    own = DenseTask(labels=["a", "b"], losses=[CrossEntropy(class_weights="inverse_frequency")])
    bound = bind_sources(
        DataConfig(sources={"town": SourceConfig(dataset=dataset, targets={"t": TargetConfig()})}), {"t": own}
    )
    (tmp_path / "state.pt").touch()
    (tmp_path / FILE).write_text("t, all images: {pixels: {a: 1.0, x: 1.0}, beside: {}, images: 1}\n")
    weigh_classes({"t": own}, bound, tmp_path)
    assert own.losses == [CrossEntropy(class_weights={"a": 1.5, "b": 0.5})]
    (tmp_path / FILE).write_text("[1")
    own.losses = [CrossEntropy(class_weights="inverse_frequency")]
    with pytest.raises(WorkError, match="damaged; delete it"):
        weigh_classes({"t": own}, bound, tmp_path)


def test_a_damaged_label_map_is_passed_over_where_faults_are_skipped(tmp_path: Path) -> None:
    image_mask_folder(tmp_path / "mine", ["a", "b", "c"], counts={"train": 3})
    (tmp_path / "mine/annotations/train/train_0.png").write_bytes(b"not an image")
    dataset = ImageMaskFolder(root=str(tmp_path / "mine"), labels=["a", "b", "c"])

    def count(**options: Any) -> dict[str, Frequencies]:
        tasks: dict[str, Task] = {
            "semantic": Semantic(labels=["a", "b", "c"], losses=[CrossEntropy(class_weights="inverse_frequency")])
        }
        source = SourceConfig(dataset=dataset, targets={"semantic": TargetConfig()}, **options)
        return weigh_classes(tasks, bind_sources(DataConfig(sources={"mine": source}), tasks))

    with pytest.raises(WorkError, match=r"train_0\.png: not an image"):
        count()
    (found,) = count(faults="skip").values()
    assert found.images == 2
