"""A model on disk: the same weights back, and one line for everything that can be wrong with a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from upernet.config import InferenceConfig, ModelConfig
from upernet.errors import UserError, WorkError
from upernet.model import UPerNet
from upernet.model.build import as_run, build_model, fill
from upernet.store.loading import find_model, load_model
from upernet.store.native import CONFIG, WEIGHTS, save_model
from upernet.tasks import CrossEntropy, Focal, Object, Part, Scene, Task
from upernet.zoo.shipped import shipped_models

INFERENCE = InferenceConfig(short_side=64, max_side=128, antialias=True)


def tasks(**changed: Task | None) -> dict[str, Task]:
    made: dict[str, Any] = {
        "scene": Scene(labels={"street": "#102030", "field": "#00ff00"}, width=8),
        "object": Object(labels=["car", "house"], width=8),
        "part": Part(parts={"car": ["wheel"]}, width=8),
    }
    return {name: task for name, task in (made | changed).items() if task is not None}


def network(seed: int = 0, **changed: Task | None) -> UPerNet:
    """A tiny network whose every tensor has been moved away from its start."""
    torch.manual_seed(seed)
    own = tasks(**changed)
    model = build_model(ModelConfig(backbone="test_resnet", width=8, mean=(0.1, 0.2, 0.3), pooling="precise"), own)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randint_like(value, 1, 5)) if not value.is_floating_point() else value.add_(
                torch.rand_like(value)
            )
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "m", network(), tasks(), INFERENCE, info={"step": 7, "note": "höhe"})
    return tmp_path / "m"


def moved(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


def edit(folder: Path, change: Any) -> Path:
    """Change the content of a model's configuration."""
    path = folder / CONFIG
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    return path


# --- there and back -------------------------------------------------------------------------------------------------


def test_a_model_comes_back_bit_for_bit(folder: Path) -> None:
    model, loaded, inference = load_model(folder)
    original = network()
    assert not moved(original.state_dict(), model.state_dict())
    assert (loaded, inference, model.config) == (tasks(), INFERENCE, original.config)
    assert list(loaded) == ["scene", "object", "part"]
    assert not model.training
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        answers, expected = model(image), as_run(original)(image)
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


# --- folders that are wrong -----------------------------------------------------------------------------------------


def told(folder: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_model_is_told(folder: Path) -> None:
    line = told(folder / "nowhere")
    assert line.startswith(f"{folder / 'nowhere'}: no model; give a folder with model.safetensors and config.yaml, ")


def test_half_a_model_folder_is_told(folder: Path) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    assert told(folder) == f"{folder}: holds config.yaml, but no model.safetensors beside it"
    (folder / CONFIG).unlink()
    assert told(folder).startswith(f"{folder}: no checkpoint files; give one file, or a folder with")
    (folder / WEIGHTS).write_bytes(weights)
    assert "no UPerNet by its tensors" in told(folder)


def test_addresses_of_other_kinds_are_told() -> None:
    assert told("ftp://host/model.pth").startswith("'ftp://host/model.pth' is no address of weights")


def test_what_is_published_and_not_read_says_why() -> None:
    assert "published, but not read: " in told("upernet_beit-base_8x2_640x640_160k_ade20k")


def test_a_shipped_model_is_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.zoo.shipped.SHIPPED", folder.parent)
    monkeypatch.setattr("upernet.store.loading.SHIPPED", folder.parent)
    assert shipped_models() == ["m"]
    assert find_model("m") == [folder]
    assert "shipped inside is m, upernet models" in told("n")


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_damaged_weights_are_told(folder: Path, size: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:size])
    assert told(folder).startswith(f"{path}: no readable safetensors file (")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "no YAML ("),
        (b"\xff\xfe\x00", "no YAML ("),
        (b"- 1", "expected the keys model and tasks"),
        (b"", "expected the keys model and tasks"),
        (b"model: {}", "expected the keys model and tasks"),
        (b"{model: {}, tasks: [1]}", "expected the keys model and tasks"),
        (b"{model: {width: wide}, tasks: {}}", "a value of the wrong kind"),
        (b"{model: {}, tasks: {scene: null}}", "tasks.scene: expected class_path"),
        (b"{model: 3, tasks: {}}", "model: expected a mapping for ModelConfig, found 3"),
    ],
)
def test_a_damaged_configuration_is_told(folder: Path, text: bytes, message: str) -> None:
    (folder / CONFIG).write_bytes(text)
    assert told(folder).startswith(f"{folder / CONFIG}: {message}")


@pytest.mark.parametrize("text", ["a: !!bool b", "a: 2020-99-99", "a: !!timestamp b", "[" * 5000, "a: !!int b"])
def test_values_that_are_none_are_told(folder: Path, text: str) -> None:
    (folder / CONFIG).write_text(text)
    assert told(folder).startswith(f"{folder / CONFIG}: no YAML (")


def test_a_list_of_lists_of_lists_is_told(folder: Path) -> None:
    """A dozen lines that mean a billion values, were each alias written out."""
    lines = ["a0: &a0 [" + "x," * 9 + "x]"] + [
        f"a{i}: &a{i} [" + f"*a{i - 1}," * 9 + f"*a{i - 1}]" for i in range(1, 9)
    ]
    (folder / CONFIG).write_text("\n".join([*lines, "model: {}", "tasks: {scene: *a8}"]))
    assert told(folder) == (
        f"{folder / CONFIG}: holds more than 1000000 values, counting shared ones anew; it may be hostile"
    )


def test_a_network_of_modules_without_end_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upernet.model.build.MODULES", 400)
    load_model(folder)
    path = edit(folder, lambda c: c["model"].update(backbone="resnet18", backbone_args={"layers": [10**9, 1, 1, 1]}))
    assert told(folder) == f"{path}: asks for a network of more than 400 modules; it may be hostile"


def test_tables_that_no_file_pays_for_are_told(folder: Path) -> None:
    """Positions in windows of 128 are compared pair by pair: gigabytes from a table of 65,025 rows."""
    shape = {"depths": [1, 1, 1, 1], "embed_dim": 8, "num_heads": [1, 1, 1, 1], "window_size": 128}
    path = edit(
        folder,
        lambda c: c["model"].update(backbone="swin_tiny_patch4_window7_224", backbone_args={**shape, "img_size": 4096}),
    )
    assert told(folder).startswith(f"{path}: implies tables of ")


def test_an_index_that_leads_elsewhere_is_told(tmp_path: Path) -> None:
    index = tmp_path / "model" / "pytorch_model.bin.index.json"
    index.parent.mkdir()
    (tmp_path / "model-1-of-2.bin").write_bytes(b"outside")
    for name in ("../model-1-of-2.bin", "..", str(tmp_path / "model-1-of-2.bin")):
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        assert told(index.parent) == f"{index}: names no weight files beside it but {name!r}; valid: 'model-1-of-2.bin'"
    index.write_text(json.dumps({"weight_map": {"x": "model-1-of-2.bin"}}))
    assert told(index.parent) == (
        f"{index}: names the weight file 'model-1-of-2.bin', which is not beside it; download it too"
    )


def test_weights_that_claim_what_no_network_has_are_told(folder: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[0,1099511627776],"data_offsets":[0,0]}}'
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    assert told(folder).startswith(f"{folder / WEIGHTS}: tensor 'x' claims a side of 1099511627776")


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
    assert told(folder).startswith(f"{path}: unknown class 'car'")


def test_a_class_that_is_no_task_is_told(folder: Path) -> None:
    path = edit(folder, lambda c: c["tasks"]["scene"].update(class_path="subprocess.Popen"))
    assert told(folder) == f"{path}: tasks.scene: 'subprocess.Popen' is no Task"


def test_unknown_keys_are_told(folder: Path) -> None:
    path = edit(folder, lambda c: c["model"].update(widht=9))
    assert told(folder).startswith(f"{path}: model: unknown key 'widht' for ModelConfig; valid keys: backbone,")
    edit(folder, lambda c: c["model"].pop("widht"))
    edit(folder, lambda c: c["tasks"]["part"]["init_args"].update(kind=1))
    assert told(folder).startswith(f"{path}: tasks.part: unknown key 'kind' for Part; valid keys: level,")


def test_weights_of_another_network_are_told(folder: Path) -> None:
    edit(folder, lambda c: c["tasks"]["object"]["init_args"]["labels"].append("tree"))
    line = told(folder)
    assert line.startswith(f"{folder / WEIGHTS}: 2 tensors do not fit the network, first 'heads.object.")
    edit(folder, lambda c: c["tasks"].pop("scene"))
    assert "'heads.scene." in told(folder)


# --- weights to start from ------------------------------------------------------------------------------------------


def test_starting_from_a_model_with_other_tasks(folder: Path) -> None:
    """Heads of the same shape are taken; one with other classes, and one that is new, keep their own start."""
    trees = Object(labels=["car", "house", "tree"], width=8)
    model = network(1, object=trees, new=Scene(labels=["a", "b"], width=8), scene=None)
    start, given = {k: v.clone() for k, v in model.state_dict().items()}, load_file(folder / WEIGHTS)
    fill(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    for name, value in model.state_dict().items():
        fresh = name.startswith(("heads.object.", "heads.new."))
        assert torch.equal(value, start[name] if fresh else given[name]), name


def test_a_head_is_taken_whole_or_not_at_all(folder: Path) -> None:
    """The convolution of the object head would fit, but its classifier has other classes."""
    model = network(1, object=Object(labels=["car", "house", "tree"], width=8))
    before = {k: v.clone() for k, v in model.heads["object"].state_dict().items()}
    fill(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    assert not moved(before, model.heads["object"].state_dict())


def test_another_backbone_is_no_start(folder: Path) -> None:
    model = build_model(ModelConfig(backbone="test_efficientnet", width=8), tasks())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=r"tensors do not fit the network, first 'backbone\."):
        fill(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)
    assert not moved(before, model.state_dict())


def test_a_start_that_lacks_a_tensor_of_the_network_is_told(folder: Path) -> None:
    """Only heads may be missing."""
    given = load_file(folder / WEIGHTS)
    name = next(name for name in given if name.startswith("decoder.") and name.endswith(".weight"))
    del given[name]
    save_file(given, folder / WEIGHTS)
    with pytest.raises(WorkError, match=rf"1 tensors do not fit the network, first '{name}'"):
        fill(network(1, scene=None), load_file(folder / WEIGHTS), str(folder / WEIGHTS), partial=True)


def test_without_partial_every_head_must_fit(folder: Path) -> None:
    with pytest.raises(UserError, match="do not fit the network"):
        fill(network(1, scene=None), load_file(folder / WEIGHTS), str(folder / WEIGHTS))


def test_parts_need_their_objects() -> None:
    with pytest.raises(UserError, match="reads the objects of task 'object'; tasks: part"):
        build_model(ModelConfig(backbone="test_resnet", width=8), {"part": Part(parts={"car": ["wheel"]})})
