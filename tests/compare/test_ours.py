"""Our own implementation answers as parsing does, at the size that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_networks import semantic, tiny, trial

from upernet import tasks as kinds
from upernet.compare.implementation import Trial
from upernet.compare.ours import label_maps, open_plain, seeded_network
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.model import UPerNet
from upernet.parse.parser import Parser
from upernet.store.native import save_model
from upernet.tasks import Object, Task


@torch.inference_mode()
def labels_of(model: UPerNet, tasks: dict[str, Task], shown: Trial) -> Any:
    return label_maps(model, tasks, shown)


def test_our_answer_is_the_networks_brought_to_size() -> None:
    tasks = semantic()
    model = seeded_network(tiny(align_corners=True), tasks)
    shown = trial(answer=(45, 70))
    with torch.inference_mode():
        logits = model(shown.image / 255)["semantic"]
        for size in (shown.input_size, shown.answer_size):
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=True)
    assert (labels_of(model, tasks, shown)["semantic"] == logits.argmax(1)).float().mean() > 0.999


def test_several_images_answer_as_each_alone() -> None:
    tasks = semantic()
    model = seeded_network(tiny(), tasks)
    for how in ({}, {"window": (48, 48), "stride": (32, 32)}):
        both = trial(batch=2, answer=(45, 70), **how)
        together = labels_of(model, tasks, both)["semantic"]
        assert together.shape == (2, 45, 70)
        for found, image in zip(together, both.image, strict=True):
            (alone,) = labels_of(model, tasks, Trial(image[None], both.answer_size, both.inference))["semantic"]
            assert (found == alone).float().mean() > 0.999


def test_windows_slide_as_in_parsing() -> None:
    tasks = semantic(auxiliary=False)
    model = seeded_network(tiny(), tasks)
    how = {"window": (48, 48), "stride": (32, 32)}
    shown = trial(**how)
    assert (shown.window_count, shown.window_size) == (6, (48, 48))
    found = labels_of(model, tasks, shown)["semantic"][0]
    parsed = Parser(model, tasks, InferenceConfig(**how), "m")(shown.image[0] / 255)
    assert (found.numpy() == parsed["semantic"]).mean() > 0.999


def test_all_tasks_of_a_model_are_answered() -> None:
    tasks: dict[str, Task] = {
        "scene": kinds.Scene(labels=["a", "b"], width=8),
        "object": Object(labels=["c", "d"], width=8),
    }
    found = labels_of(seeded_network(tiny(), tasks), tasks, trial(batch=2, answer=(32, 40)))
    assert {name: tuple(value.shape) for name, value in found.items()} == {"scene": (2,), "object": (2, 32, 40)}


def test_random_weights_are_the_same_every_time_and_all_take_part() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = (seeded_network(tiny(backbone="resnet18"), semantic()) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(module.weight.any() for module in one.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert not one.training


def test_the_plain_network_decodes_its_answers_whole(tmp_path: Path) -> None:
    """Parts of the wrong object, and of none, among them."""
    tasks: dict[str, Task] = {
        "scene": kinds.Scene(labels=["room", "street"], width=8),
        "object": Object(labels=["car", "house"], width=8),
        "part": kinds.Part(parts={"car": ["wheel", "door"]}, width=8),
    }
    model = seeded_network(tiny(), tasks)
    save_model(tmp_path, model, tasks, InferenceConfig())
    shown = trial(answer=(64, 96))
    with torch.inference_mode():
        found = open_plain(tmp_path, (), shown)().run()
    expected = labels_of(model, tasks, shown)
    assert found.keys() == expected.keys()
    for name, ids in expected.items():
        assert (found[name] == ids).float().mean() > 0.999, name
    with pytest.raises(UserError, match="has no sliding windows"):
        open_plain(tmp_path, (), trial(window=(48, 48), stride=(32, 32)))
