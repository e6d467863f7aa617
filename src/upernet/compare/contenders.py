"""What `upernet benchmark` measures: our network and the same one in other software, and what each costs.

All go from the same picture to its label map, each by the code with which its own users evaluate. Other software is
never needed: it is imported in this file alone, when somebody asks to be compared with it.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from upernet.config import InferenceConfig, ModelConfig, OptimConfig
from upernet.engine.optim import build_optimizer
from upernet.errors import UserError
from upernet.inference.views import Views, order_tasks, resize, windows_of
from upernet.labels import ClassSets
from upernet.model import UPerNet
from upernet.model.build import build_model, for_inference
from upernet.plain import to_plain
from upernet.store.foreign import write_foreign
from upernet.tasks import Semantic, Task

DISCARDED = 5
"""First images, which are run but not counted (SPEC D3)."""

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Scene:
    """What every contender is shown.

    Attributes:
        image: (B, 3, h, w) float32 RGB in [0, 255] at the network's input size, on the device.
        size: Size of the label map to give.
        inference: Windows and the way back to `size`; how images are resized is not looked at, this one is.
    """

    image: Tensor
    size: Size
    inference: InferenceConfig

    @property
    def shape(self) -> Size:
        """Size of the network's input."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def windows(self) -> int:
        """How many windows the network sees of one image."""
        return len(windows_of(self.shape, self.inference))

    @property
    def window(self) -> Size:
        """Size of each of them."""
        top, left, bottom, right = windows_of(self.shape, self.inference)[0]
        return bottom - top, right - left


@dataclass(frozen=True)
class Contender:
    """One implementation, ready to run.

    Attributes:
        name: `upernet`, or what `--compare` calls it.
        version: Of the software.
        module: The network.
        run: From the picture to label maps, once.
        multiply_adds: Of one image, all its windows.
        differs: In what its network is another one than ours.
        disagreement: Largest difference of its logits from those of our code with the same weights, in standard
            deviations of the logits.
    """

    name: str
    version: str
    module: nn.Module
    run: Callable[[], object]
    multiply_adds: int
    differs: tuple[str, ...] = ()
    disagreement: float | None = None


@dataclass
class Costs:
    """What the runs of one contender cost, the discarded ones left out.

    Attributes:
        seconds: Wall time of each.
        cpu_seconds: Time of all threads of the process in each.
        memory: Bytes that PyTorch held at most, weights among them; none where it does not tell.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    memory: int | None = None


# --- what a network costs -------------------------------------------------------------------------------------------


def count_parameters(model: UPerNet) -> dict[str, int]:
    """Parameters in all and by part; `heads` are those of tasks that are answered, `auxiliary` those only trained."""
    heads = {name: sum(p.numel() for p in head.parameters()) for name, head in model.heads.items()}
    auxiliary = sum(count for name, count in heads.items() if model.tasks[name].auxiliary)
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "backbone": sum(p.numel() for p in model.backbone.parameters()),
        "decoder": sum(p.numel() for p in model.decoder.parameters()),
        "heads": sum(heads.values()) - auxiliary,
        "auxiliary": auxiliary,
    }


def count_multiply_adds(module: nn.Module, size: Size) -> dict[str, int]:
    """Multiply-adds of one image in evaluation mode, in all and by part; from shapes alone, so that it takes no time.

    Half of what PyTorch's counter finds: convolutions, matrix products and attention, not norms, activations, sums and
    interpolation. Published totals are of convolutions (237.9 G for R-50 at 512×512, without the auxiliary head):
    that our PPM averages by two small matrix products, and others in loops, is therefore left out too.

    Args:
        module: Takes (B, 3, h, w).
        size: Height and width of what it is shown.

    Returns:
        `total`, and for ours `backbone`, `decoder` and `heads`.
    """
    shapes = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        functional_call(module, shapes, (torch.empty(1, 3, *size, device="meta"),))
    root = type(module).__name__
    by_module: dict[str, dict[Any, int]] = {
        name: dict(counts) for name, counts in counter.get_flop_counts().items() if name != "Global"
    }
    pooling = by_module.get(f"{root}.decoder.ppm", {}) if isinstance(module, UPerNet) else {}
    averages = sum(count for op, count in pooling.items() if "convolution" not in str(op))
    parts = {"total": (counter.get_total_flops() - averages) // 2}
    if isinstance(module, UPerNet):
        parts["backbone"] = sum(by_module[f"{root}.backbone"].values()) // 2
        parts["decoder"] = (sum(by_module.get(f"{root}.decoder", {}).values()) - averages) // 2
        parts["heads"] = parts["total"] - parts["backbone"] - parts["decoder"]
    return parts


def arithmetic(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision where it is asked for by a key of `DTYPES`."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "float32")


def measure(
    contenders: Sequence[Contender],
    device: torch.device,
    precision: str,
    images: int,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, Costs]:
    """Run all contenders in turns, image by image, so that a machine's moods meet all of them.

    Args:
        contenders: On the device.
        device: Waited for before and after each run.
        precision: A key of `DTYPES`; other than float32, arithmetic is mixed (autocast).
        images: Runs of each; the first five are not counted.
        advance: Called after each run.

    Returns:
        By name.
    """
    costs = {c.name: Costs() for c in contenders}
    tuning, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        with torch.inference_mode(), arithmetic(device, precision), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other software says such things of sizes in every run
            for image in range(images):
                for contender in contenders:
                    cost = costs[contender.name]
                    if image == 1:  # not the first, which also holds what is made once
                        held = sum(t.nbytes for t in (*contender.module.parameters(), *contender.module.buffers()))
                        peak = _peak_memory(contender.run, device)
                        cost.memory = None if peak is None else held + peak
                    else:
                        wall, cpu = _time(contender.run, device)
                        if image >= DISCARDED:
                            cost.seconds.append(wall)
                            cost.cpu_seconds.append(cpu)
                    advance()
    finally:
        torch.backends.cudnn.benchmark = tuning
    return costs


def _time(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    run()
    wait()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


def _peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that PyTorch's allocator held at most during a run, beyond what it held before; none if it cannot tell.

    On a CPU the profiler tells of every allocation: resident memory would count the whole process, other contenders and
    what the system library keeps for later.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its notes would get between ours
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak or None


def training_peak(network: UPerNet, optim: OptimConfig, batch: int, crop: Size, precision: str) -> int | None:
    """Bytes held at most in a training step (SPEC D3), the optimiser's among them; none on a CPU.

    Args:
        network: On its device, changed by two steps on noise; all its tasks are `Semantic`.
        optim: The optimiser.
        batch: Images of this process.
        crop: Height and width of what the network sees.
        precision: A key of `DTYPES`.
    """
    network.train()
    optimizer = build_optimizer(network, optim)
    device = network.mean.device
    image = torch.rand(batch, 3, *crop, device=device).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    # Momentum is allocated by the first step and held by the second.
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        losses = []
        with arithmetic(device, precision):
            for name, logits in network(image).items():
                task = network.tasks[name]
                target = torch.randint(len(task.classes), (batch, *crop), device=device)
                full = resize(logits.float(), crop, network.upsampling_align_corners)
                losses.append(task.weight * task.loss(full, target, ClassSets.of(task.classes.names, task.classes)))
        torch.stack(losses).sum().backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


# --- ours -----------------------------------------------------------------------------------------------------------


def fresh_network(config: ModelConfig, tasks: Mapping[str, Task]) -> UPerNet:
    """A network with random weights, the same every time, in evaluation mode.

    Residual branches start with a last norm of weight 0 and would say nothing; comparing answers needs all of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = for_inference(build_model(config, tasks))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.constant_(module.weight, 0.2)
    return network


class _Answered:
    """Stands where `Views` wants a network, with the logits of one image out of a batch that has been run."""

    def __init__(self, logits: dict[str, Tensor], corners: bool) -> None:
        self.logits = logits
        self.upsampling_align_corners = corners

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        return self.logits


def our_contender(model: UPerNet, tasks: Mapping[str, Task], scene: Scene, version: str) -> Contender:
    """Ours, by the code that `upernet evaluate` runs; normalising the image is part of the network.

    Args:
        model: In evaluation mode, on the scene's device.
        tasks: Its tasks by name.
        scene: What it is shown; several images only where no windows slide.
        version: Of this package.
    """
    ordered = order_tasks({name: task for name, task in tasks.items() if not task.auxiliary})
    inference = replace(scene.inference, short_side=None, max_side=None, scales=(1.0,), flip=False)

    def run() -> list[dict[str, Tensor]]:
        if len(scene.image) == 1:
            return [labels(model, scene.image[0])]
        logits = model(scene.image / 255)
        corners = model.upsampling_align_corners
        ready = [_Answered({n: v[i : i + 1] for n, v in logits.items()}, corners) for i in range(len(scene.image))]
        return [labels(cast(UPerNet, one), image) for one, image in zip(ready, scene.image, strict=True)]

    def labels(network: UPerNet, image: Tensor) -> dict[str, Tensor]:
        views = Views(network, image, inference, ordered)
        views.size = scene.size  # the photograph's, of which `image` is what the network sees
        answers: dict[str, Tensor] = {}
        for name in views.image_level:
            answers[name] = ordered[name].decode(views.answer(name), answers)
        maps = {name: torch.empty(scene.size, dtype=torch.int64, device=image.device) for name in views.maps}
        for start, stop, tile in views.tiles():
            decoded = dict(answers)
            for name, probabilities in tile.items():
                decoded[name] = ordered[name].decode(probabilities, decoded)
                maps[name][start:stop] = decoded[name][0]
        return answers | maps

    cost = count_multiply_adds(model, scene.window)["total"] * scene.windows
    return Contender("upernet", version, model, run, cost)


# --- theirs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Software:
    """How one other library is used.

    Attributes:
        module: What is imported.
        dialect: What `upernet convert --to` calls it.
        nearest: From our network to the nearest one the library has.
        open: Builds that from the file or folder which our converter wrote, with the scene's windows.
        logits: Of a normalised image (B, 3, h, w): (B, K, h, w).
        label: From normalised images to label maps (B, H, W), as the library's users get them.
    """

    module: str
    dialect: str
    nearest: Callable[[ModelConfig], ModelConfig]
    open: Callable[[Path, UPerNet, Scene], nn.Module]
    logits: Callable[[Any, Tensor], Tensor]
    label: Callable[[Any, Tensor, Size], object]
    auxiliary: bool = False
    """Whether it has the auxiliary head and leaves it alone when it predicts."""


def peer_contender(
    name: str, model: UPerNet, tasks: Mapping[str, Task], scene: Scene, precision: str = "float32"
) -> Contender:
    """The same network, or the nearest, in other software, with our weights wherever both have the same tensor.

    Args:
        name: A key of `SOFTWARE`.
        model: Ours, on the scene's device.
        tasks: Its tasks by name.
        scene: What it will be shown.
        precision: A key of `DTYPES`, in which it shall run.

    Raises:
        UserError: If the software is not installed, or has no such network.
    """
    software = SOFTWARE[name]
    with _quiet():
        library = _import(software)
    kept = {n: task for n, task in tasks.items() if software.auxiliary or not task.auxiliary}
    config = software.nearest(model.config)
    twin = fresh_network(config, kept)
    state = twin.state_dict()
    # On the CPU, where the converter writes from.
    same = {k: v.cpu() for k, v in model.state_dict().items() if k in state and state[k].shape == v.shape}
    twin.load_state_dict(state | same)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        place = Path(folder) / ("model.pth" if software.dialect == "mmseg" else "model")
        write_foreign(place, software.dialect, twin, kept, scene.inference)
        network = software.open(place, twin, scene).eval().to(scene.image.device)
    image = (scene.image / 255 - model.mean) / model.std
    (height, width), device = scene.window, scene.image.device
    one = image[:1, :, :height, :width]
    twin = twin.to(device)
    # Rounding to TF32 would hide what differs.
    rounding, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with torch.inference_mode(), _quiet():
            own = twin(one * twin.std + twin.mean, ["semantic"])["semantic"]
            own = resize(own, (height, width), twin.upsampling_align_corners)
            disagreement = ((software.logits(network, one) - own).abs().max() / own.std()).item()
            with arithmetic(device, precision):
                software.label(network, image, scene.size)  # what cannot run says so here
    finally:
        torch.backends.cudnn.allow_tf32 = rounding
    return Contender(
        name,
        str(library.__version__),
        network,
        lambda: software.label(network, image, scene.size),
        count_multiply_adds(network, scene.window)["total"] * scene.windows,
        tuple(_differences(model.config, config, tasks.keys() - kept.keys())),
        disagreement,
    )


def _import(software: Software) -> Any:
    """The library.

    Raises:
        UserError: If it is not installed.
    """
    try:
        if software.module == "mmseg":
            _without_compiled_operations()
        return importlib.import_module(software.module)
    except ModuleNotFoundError as error:
        raise UserError(f"not installed ({error.name} is missing); pip install 'upernet[peers]'") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep notes, bars and warnings of other software off the screen."""
    unread = io.StringIO()
    with redirect_stdout(unread), redirect_stderr(unread), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _without_compiled_operations() -> None:
    """Let the toolbox be imported where its compiled operations, of which UPerNet uses none, are not installed."""
    try:
        importlib.import_module("mmcv._ext")
    except ModuleNotFoundError:
        if importlib.util.find_spec("mmcv") is not None:
            sys.modules["mmcv._ext"] = mock.MagicMock()


def _differences(ours: ModelConfig, theirs: ModelConfig, left_out: Iterable[str]) -> list[str]:
    """What of a network is another one there, in words."""
    mine, yours = (to_plain(c) | {"logits_align_corners": c.upsampling_align_corners} for c in (ours, theirs))
    changed = [f"{key} {yours[key]}, not {mine[key]}" for key in mine if mine[key] != yours[key]]
    return changed + [f"no {name} head" for name in left_out]


def _plain_stem(backbone: str) -> str:
    """Of a ResNet with a deep stem, the one with the 7×7 stem."""
    found = re.fullmatch(r"(resnet\d+)[cdst]", backbone)
    return found[1] if found else backbone


def _in_transformers(config: ModelConfig) -> ModelConfig:
    return replace(config, backbone=_plain_stem(config.backbone), align_corners=False, logits_align_corners=None)


def _in_smp(config: ModelConfig) -> ModelConfig:
    return replace(
        config,
        backbone=_plain_stem(config.backbone),
        align_corners=False,
        logits_align_corners=True,
        level_norm=True,
        level_norm_eps=1e-6,
    )


def _open_mmseg(place: Path, twin: UPerNet, scene: Scene) -> nn.Module:
    """Built from the configuration that our converter wrote beside the weights, windows among it.

    Raises:
        UserError: If the backbone is no ResNet of its.
    """
    name = twin.config.backbone
    if not re.fullmatch(r"resnet(18|34|50|101|152)[cd]?", name) or twin.config.backbone_args:
        raise UserError(f"compared on ResNet only; this model has {name!r}; valid: resnet50c")
    importlib.import_module("mmseg.models")  # registers them
    checkpoint = torch.load(place, weights_only=True)
    config = importlib.import_module("mmengine").Config.fromstring(checkpoint["meta"]["cfg"], ".py")
    importlib.import_module("mmengine.registry").init_default_scope(config.default_scope)
    network: nn.Module = importlib.import_module("mmseg.registry").MODELS.build(config.model)
    network.load_state_dict(checkpoint["state_dict"])
    return network


def _label_mmseg(network: Any, image: Tensor, size: Size) -> object:
    sample = importlib.import_module("mmseg.structures").SegDataSample
    shown = tuple(image.shape[-2:])
    samples = [sample(metainfo={"ori_shape": size, "img_shape": shown, "pad_shape": shown}) for _ in image]
    return torch.cat([s.pred_sem_seg.data for s in network.predict(image, samples)])


def _open_transformers(place: Path, twin: UPerNet, scene: Scene) -> nn.Module:
    _refuse_windows(scene)
    network: nn.Module = importlib.import_module("transformers").UperNetForSemanticSegmentation.from_pretrained(place)
    return network


def _open_smp(place: Path, twin: UPerNet, scene: Scene) -> nn.Module:
    _refuse_windows(scene)
    network: nn.Module = importlib.import_module("segmentation_models_pytorch").from_pretrained(str(place))
    return network


def _refuse_windows(scene: Scene) -> None:
    if scene.inference.window is not None:
        raise UserError("slides no windows; compared where the image is shown whole")


def _label(logits: Tensor, size: Size) -> Tensor:
    """Label maps from logits (B, K, h, w), as both libraries' documentation does it."""
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits.argmax(dim=1)


SOFTWARE = {
    "mmseg": Software(
        "mmseg",
        "mmseg",
        lambda config: config,
        _open_mmseg,
        lambda network, x: network.encode_decode(x, [{"img_shape": tuple(x.shape[-2:])}]),
        _label_mmseg,
        auxiliary=True,
    ),
    "transformers": Software(
        "transformers",
        "huggingface",
        _in_transformers,
        _open_transformers,
        lambda network, x: network(x).logits,
        lambda network, x, size: _label(network(x).logits, size),
    ),
    "smp": Software(
        "segmentation_models_pytorch",
        "smp",
        _in_smp,
        _open_smp,
        lambda network, x: network(x),
        lambda network, x, size: _label(network(x), size),
    ),
}


def all_semantic(tasks: Mapping[str, Task]) -> bool:
    """Whether these are the tasks of a published row: segmentation, and its auxiliary head."""
    return all(isinstance(task, Semantic) for task in tasks.values())
