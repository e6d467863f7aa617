"""Annotations where an image has them, the model's answers where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import CLASSES, VOCABULARY, named, tasks
from PIL import Image
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.items import Annotation, Item
from upernet.data.mixture import LabelledSource, bind_sources
from upernet.data.source import Source
from upernet.engine.knowledge.chunks import chunk_file, read_chunk
from upernet.engine.knowledge.looking import Chunk, Looker, Model, Photo
from upernet.engine.knowledge.observation import Observation, Origin

NONE, ANNOTATED, PREDICTED = Origin.NONE, Origin.ANNOTATED, Origin.PREDICTED
CPU = torch.device("cpu")


class Constant:
    """A network that sees a kitchen with a car everywhere, which is one metal, striped wheel; and what it was asked."""

    upsampling_align_corners = False

    def __init__(self) -> None:
        self.asked: list[set[str]] = []

    def __call__(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        self.asked.append(set(names))
        answers = {"scene": 1, "object": 0, "part": 1, "material": 0, "texture": 0}
        logits = {name: torch.zeros(1, len(CLASSES[name]), *(() if name == "scene" else (2, 2))) for name in names}
        for name, value in logits.items():
            value[:, answers[name]] = 9
        return logits


@dataclass(kw_only=True)
class Given(Source):
    """One image of 4×4 pixels with the annotations that are given."""

    values: dict[str, Any]
    labels: dict[str, list[str]]
    root: str = "."

    @property
    def annotations(self) -> dict[str, Annotation]:
        return {n: Annotation(tuple(names), np.ndim(self.values.get(n, 0)) == 2) for n, names in self.labels.items()}

    def items(self, split: str) -> list[Item]:
        return [Item("one", Path(__file__))]

    def read(self, item: Item) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros((4, 4, 3), np.uint8), self.values


def bound(values: dict[str, Any], labels: dict[str, list[str]], **targets: TargetConfig) -> dict[str, LabelledSource]:
    own = tasks()
    for task in own.values():
        task.bind(own)
    for target in targets.values():
        target.evaluate = False
    source = SourceConfig(dataset=Given(values=values, labels=labels), targets=targets)
    return bind_sources(DataConfig(sources={"given": source}), own)


def look(folder: Path, photos: Sequence[Photo], sources: Any = (), model: Any = None) -> list[Observation]:
    own = tasks()
    for task in own.values():
        task.bind(own)
    found = None if model is None else Model(model, InferenceConfig(short_side=32), CPU)
    looker = Looker(own, VOCABULARY, dict(sources), found, folder, examples=1)
    faults = looker.look(Chunk(0, 0, tuple(photos)))
    observations = read_chunk(chunk_file(folder, 0))
    assert faults == [seen.fault for seen in observations if seen.fault]
    return observations


def one(folder: Path, sources: Any, model: Any = None) -> tuple[list[int], dict[str, dict[str, int]]]:
    """Origins by task, and pixels by task and class."""
    (seen,) = look(folder, [Photo("given/one", Item("one", Path(__file__)), "given")], sources, model)
    classes: dict[str, dict[str, int]] = {}
    for task, number, pixels in seen.classes.tolist():
        name = VOCABULARY.tasks[task]
        classes.setdefault(name, {})[CLASSES[name][number]] = pixels
    return seen.origins.tolist(), classes


MASK = np.repeat([[0, 1, 2, -1]], 4, axis=0)
"""Four pixels of each of three labels, and four unlabelled."""


def test_labels_count_if_they_stand_for_one_class(tmp_path: Path) -> None:
    labels = {"mask": ["vehicle", "facade", "void"]}
    classes = {"vehicle": "car", "facade": ["wall", "sky"], "void": None}
    sources = bound({"mask": MASK}, labels, object=TargetConfig(classes=classes))  # type: ignore[arg-type]
    assert one(tmp_path, sources) == ([NONE, ANNOTATED, NONE, NONE, NONE], {"object": {"car": 4}})


def test_the_model_answers_what_is_not_annotated(tmp_path: Path) -> None:
    network = Constant()
    sources = bound({"mask": MASK}, {"mask": CLASSES["material"]}, material=TargetConfig())
    origins, classes = one(tmp_path, sources, network)
    assert origins == [PREDICTED, PREDICTED, PREDICTED, ANNOTATED, PREDICTED]
    assert classes == {
        "scene": {"kitchen": 0},
        "object": {"car": 16},
        "part": {"car/wheel": 16},
        "material": {"metal": 4, "glass": 4, "brick": 4},
        "texture": {"striped": 16},
    }
    assert network.asked == [{"scene", "object", "part", "texture"}]


def test_a_predicted_part_lies_in_the_predicted_object(tmp_path: Path) -> None:
    """The network is asked for objects too, though these are annotated."""
    network = Constant()
    sources = bound({"mask": MASK}, {"mask": CLASSES["object"]}, object=TargetConfig())
    origins, classes = one(tmp_path, sources, network)
    assert origins[1:3] == [ANNOTATED, PREDICTED]
    assert classes["object"] == {"car": 4, "wall": 4, "sky": 4}
    assert classes["part"] == {"car/wheel": 16}
    assert "object" in network.asked[0]


def test_an_annotated_map_counts_though_all_of_it_is_unknown(tmp_path: Path) -> None:
    sources = bound({"mask": np.full((4, 4), -1)}, {"mask": CLASSES["object"]}, object=TargetConfig())
    origins, classes = one(tmp_path, sources, Constant())
    assert origins[1] == NONE
    assert "object" not in classes


@pytest.mark.parametrize(
    ("label", "target", "scene"),
    [
        (0, TargetConfig(classes={"road": "street", "any": ["street", "kitchen"]}), (ANNOTATED, "street")),
        (1, TargetConfig(classes={"road": "street", "any": ["street", "kitchen"]}), (PREDICTED, "kitchen")),
        (-1, TargetConfig(classes={"road": "street", "any": None}), (PREDICTED, "kitchen")),
        (0, TargetConfig(constant=["street"]), (ANNOTATED, "street")),
        (0, TargetConfig(constant=["street", "kitchen"]), (PREDICTED, "kitchen")),
    ],
)
def test_a_label_of_the_image_counts_if_it_stands_for_one_class(
    tmp_path: Path, label: int, target: TargetConfig, scene: tuple[Origin, str]
) -> None:
    origins, classes = one(tmp_path, bound({"kind": label}, {"kind": ["road", "any"]}, scene=target), Constant())
    assert (origins[0], *classes["scene"]) == scene


def test_one_label_for_the_image_holds_at_every_pixel_of_a_map(tmp_path: Path) -> None:
    sources = bound({"kind": 1}, {"kind": CLASSES["texture"]}, texture=TargetConfig())
    assert one(tmp_path, sources) == ([NONE, NONE, NONE, NONE, ANNOTATED], {"texture": {"smooth": 16}})


def test_images_by_path_have_the_models_answers_alone(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (seen,) = look(tmp_path, [Photo("a", tmp_path / "a.png")], model=Constant())
    assert (seen.size, seen.origins.tolist()) == (48, [PREDICTED] * 5)


def test_what_cannot_be_read_loses_nothing_else(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    wrong = bound({"mask": named("object", "car car")}, {"mask": CLASSES["object"]}, object=TargetConfig())
    photos = [
        Photo("bad", tmp_path / "bad.png"),
        Photo("good", tmp_path / "good.png"),
        Photo("lost", tmp_path / "lost.png"),
        Photo("given/one", Item("one", Path(__file__)), "elsewhere"),
        Photo("good again", tmp_path / "good.png"),
    ]
    found = look(tmp_path, photos, wrong, Constant())
    assert [seen.size for seen in found] == [0, 48, 0, 0, 48]
    assert [seen.fault.split(":")[0] for seen in found if seen.fault] == [
        *(str(tmp_path / "bad.png"), str(tmp_path / "lost.png"), "given/one")
    ]
    assert all(len(seen.fault.splitlines()) == 1 for seen in found if seen.fault)


def test_an_image_beyond_the_memory_is_skipped_and_a_broken_network_is_not(tmp_path: Path) -> None:
    class Failing(Constant):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __call__(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
            raise self.error

    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (seen,) = look(tmp_path, [Photo("a", tmp_path / "a.png")], model=Failing(MemoryError()))
    assert seen.fault == "a: 8×6 pixels do not fit into the memory of cpu; try a smaller image"
    with pytest.raises(RuntimeError, match="wrong shape"):
        look(tmp_path, [Photo("a", tmp_path / "a.png")], model=Failing(RuntimeError("wrong shape")))
