"""A model on disk: the same weights back, and one line for everything that can be wrong with its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_model import INFERENCE, edit, moved, network, save, tasks, told

from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.model.build import for_inference
from upernet.store.loading import load_model
from upernet.store.native import CONFIG, WEIGHTS, save_model
from upernet.tasks import CrossEntropy, Focal, Object


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "m")


def test_a_model_comes_back_bit_for_bit(folder: Path) -> None:
    model, loaded, inference = load_model(folder)
    original = network()
    assert not moved(original.state_dict(), model.state_dict())
    assert (loaded, inference, model.config) == (tasks(), INFERENCE, original.config)
    assert list(loaded) == ["scene", "object", "part"]
    assert not model.training
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        answers, expected = model(image), for_inference(original)(image)
    assert all(torch.equal(answers[name], expected[name]) for name in expected)
    # The part task has been introduced to the objects.
    decoded = loaded["part"].decode(torch.rand(1, 2, 1, 2), {"object": torch.tensor([[[0, 1]]])})
    assert decoded[0, 0, 1] == -1


def test_a_folder_holds_two_files_and_what_it_was_told(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    content = yaml.safe_load((folder / CONFIG).read_text())
    assert content["format"] == 1
    assert content["info"] == {"step": 7, "note": "höhe"}
    assert "höhe" in (folder / CONFIG).read_text()


def test_half_precision_rounds_once(tmp_path: Path) -> None:
    original = network()
    save_model(tmp_path, original, tasks(), INFERENCE, half=True)
    stored = load_file(tmp_path / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.float16, torch.int64}
    model, _, _ = load_model(tmp_path)
    for name, value in model.state_dict().items():
        before = original.state_dict()[name]
        assert value.dtype == before.dtype
        assert torch.equal(value, before.half().float() if before.is_floating_point() else before)


def test_weights_too_large_for_half_precision_are_told_and_nothing_is_written(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = network()
    torch.nn.init.constant_(model.heads["object"].classifier.bias, 1e6)
    with pytest.raises(UserError) as caught:
        save_model(folder, model, tasks(), INFERENCE, half=True)
    line = "heads.object.classifier.bias: largest value 1e+06 does not fit float16; save with half=False"
    assert str(caught.value) == line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("failure", ["values that are not plain", "disk full"])
def test_a_save_that_fails_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    info: dict[str, Any] = {}
    if failure == "disk full":

        def full(path: Path, fill: Any) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr("upernet.store.native.write_whole", full)
    else:
        info["model"] = object()
    with pytest.raises((OSError, yaml.YAMLError)):
        save_model(folder, network(1), tasks(), INFERENCE, info=info)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_is_saved_over(folder: Path) -> None:
    save_model(folder, network(1), tasks(), INFERENCE)
    assert not moved(load_model(folder)[0].state_dict(), network(1).state_dict())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "not valid YAML ("),
        (b"\xff\xfe\x00", "not valid YAML ("),
        (b"- 1", "expected the keys model and tasks"),
        (b"", "expected the keys model and tasks"),
        (b"model: {}", "expected the keys model and tasks"),
        (b"{model: {}, tasks: [1]}", "tasks: expected a mapping of strings to mappings with class_path and init_args"),
        (b"{model: {width: wide}, tasks: {}}", "model.width: expected a whole number, such as 512, found 'wide'"),
        (b"{model: {}, tasks: {}, inference: 3}", "inference: expected a mapping for InferenceConfig, found 3"),
        (
            b"{model: {}, tasks: {1: {class_path: upernet.tasks.Scene}}}",
            "tasks: expected a string, such as 'car', as a key",
        ),
        (b"{model: {}, tasks: {scene: null}}", "tasks.scene: expected class_path"),
        (b"{model: 3, tasks: {}}", "model: expected a mapping for ModelConfig, found 3"),
    ],
)
def test_a_damaged_configuration_is_told(folder: Path, text: bytes, message: str) -> None:
    (folder / CONFIG).write_bytes(text)
    assert told(folder).startswith(f"{folder / CONFIG}: {message}")


@pytest.mark.parametrize(
    "text", ["a: !!bool b", "a: !!timestamp 2020-99-99", "a: !!timestamp b", "[" * 5000, "a: !!int b"]
)
def test_values_that_are_none_are_told(folder: Path, text: str) -> None:
    (folder / CONFIG).write_text(text)
    assert told(folder).startswith(f"{folder / CONFIG}: not valid YAML (")


def test_a_list_of_lists_of_lists_is_told(folder: Path) -> None:
    """A dozen lines that mean a billion values, were each alias written out."""
    lines = ["a0: &a0 [" + "x," * 9 + "x]"] + [
        f"a{i}: &a{i} [" + f"*a{i - 1}," * 9 + f"*a{i - 1}]" for i in range(1, 9)
    ]
    (folder / CONFIG).write_text("\n".join([*lines, "model: {}", "tasks: {scene: *a8}"]))
    assert told(folder) == (
        f"{folder / CONFIG}: holds more than 1000000 values, counting shared ones anew; it may be hostile"
    )


def test_an_unknown_task_class_is_told(folder: Path) -> None:
    path = edit(folder, lambda c: c["tasks"]["scene"].update(class_path="their_project.Scene"))
    assert (
        told(folder) == f"{path}: tasks.scene comes from module 'their_project'; if you trust it, --trust their_project"
    )


def test_a_module_of_the_users_own_is_imported_only_with_consent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing a module runs it: a downloaded file must not choose which."""
    code = "import pathlib\nfrom upernet.tasks import Scene\n\npathlib.Path(__file__).with_suffix('.ran').touch()\n\n\n"
    (tmp_path / "their_rooms.py").write_text(code + "class Room(Scene):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = edit(folder, lambda c: c["tasks"]["scene"].update(class_path="their_rooms.Room"))
    assert told(folder) == f"{path}: tasks.scene comes from module 'their_rooms'; if you trust it, --trust their_rooms"
    assert not (tmp_path / "their_rooms.ran").exists()
    _, loaded, _ = load_model(folder, trust=["their_rooms"])
    assert type(loaded["scene"]).__name__ == "Room"


def test_a_module_named_further_inside_needs_the_same_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import pathlib\nfrom upernet.tasks import Focal\n\npathlib.Path(__file__).with_suffix('.ran').touch()\n\n\n"
    (tmp_path / "their_terms.py").write_text(code + "class Sharp(Focal):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = Object(labels=["car", "house"], width=8, losses=[CrossEntropy(average="all"), Focal(gamma=1.5)])
    save_model(tmp_path / "m", network(object=own), tasks(object=own), INFERENCE)
    assert load_model(tmp_path / "m")[1]["object"] == own
    path = edit(
        tmp_path / "m",
        lambda c: c["tasks"]["object"]["init_args"]["losses"][1].update(class_path="their_terms.Sharp"),
    )
    line = f"{path}: tasks.object.losses.1 comes from module 'their_terms'; if you trust it, --trust their_terms"
    assert told(tmp_path / "m") == line
    assert not (tmp_path / "their_terms.ran").exists()
    _, loaded, _ = load_model(tmp_path / "m", trust=["their_terms"])
    assert [type(one).__name__ for one in loaded["object"].losses] == ["CrossEntropy", "Sharp"]  # type: ignore


def test_a_list_inside_itself_is_survived(folder: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    path = edit(folder, lambda c: c["tasks"]["object"]["init_args"].update(labels=endless))
    assert "&id001" in path.read_text()
    assert told(folder).startswith(f"{path}: tasks.object.labels.0: expected a string, such as 'car', found [[[")


def test_a_class_that_is_no_task_is_told(folder: Path) -> None:
    path = edit(folder, lambda c: c["tasks"]["scene"].update(class_path="subprocess.Popen"))
    assert told(folder) == f"{path}: tasks.scene: 'subprocess.Popen' is not a subclass of Task"


def test_unknown_keys_are_told(folder: Path) -> None:
    path = edit(folder, lambda c: c["model"].update(widht=9))
    assert told(folder).startswith(f"{path}: model: unknown key 'widht' for ModelConfig; valid keys: backbone,")
    edit(folder, lambda c: c["model"].pop("widht"))
    edit(folder, lambda c: c["tasks"]["part"]["init_args"].update(kind=1))
    assert told(folder).startswith(f"{path}: tasks.part: unknown key 'kind' for Part; valid keys: level,")


@pytest.mark.parametrize(
    ("block", "key", "value", "line"),
    [
        ("inference", "flip", "false", "inference.flip: expected true or false, found 'false'"),
        ("model", "align_corners", "no", "model.align_corners: expected true or false, found 'no'"),
        ("model", "mean", [0.1, float("nan"), 0.3], "model.mean: nan is not finite; for example [0.485, 0.456, 0.406]"),
        (
            "inference",
            "scales",
            [float("inf")],
            "inference.scales: [inf] is not a list of factors from 0.05 to 20; for example",
        ),
    ],
)
def test_a_value_that_would_change_answers_in_silence_is_told(
    folder: Path, block: str, key: str, value: Any, line: str
) -> None:
    path = edit(folder, lambda c: c[block].update({key: value}))
    assert told(folder).startswith(f"{path}: {line}")


def test_an_empty_inference_block_is_the_default(folder: Path) -> None:
    edit(folder, lambda c: c.update(inference=None))
    assert load_model(folder)[2] == InferenceConfig()


def test_the_name_alone_of_a_class_of_ours_will_do(folder: Path) -> None:
    edit(folder, lambda c: c["tasks"]["scene"].update(class_path="Scene"))
    assert load_model(folder)[1] == tasks()
    edit(folder, lambda c: c["tasks"]["scene"].update(class_path="system"))
    assert told(folder).startswith(f"{folder / CONFIG}: tasks.scene: cannot import 'upernet.tasks.system': ")
