"""Which engine runs a network, in which form."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from upernet.contract import Task
from upernet.device import HALF, Precision, check_precision
from upernet.errors import UserError, WorkError
from upernet.fused import fuse
from upernet.inference.views import Network
from upernet.model import UPerNet
from upernet.model.build import hash_weights
from upernet.model.counts import count_multiply_adds
from upernet.plain import to_plain
from upernet.runtimes.checking import TOLERANCE, relative_difference
from upernet.runtimes.engine import GRAPH, Engine, EngineName, EngineNetwork, in_one_line
from upernet.runtimes.exported import ExportedNetwork
from upernet.runtimes.graph import write_graph
from upernet.runtimes.kept import find_graph, graphs_folder, keep_graph
from upernet.runtimes.onnxruntime import ONNXRuntime
from upernet.runtimes.openvino import OpenVINO
from upernet.runtimes.pytorch import TorchNetwork
from upernet.screen import print_line

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (OpenVINO(), ONNXRuntime())}
"""The engines that run a graph, by name."""
PREFERRED = "openvino"
"""The engine that `auto` takes on a CPU."""
PAYS = 2e13
"""Multiply-adds of all images together from which on `auto` prepares a graph that is not on disk yet."""
LEAST = 5e10
"""Fewest multiply-adds of one image with which `auto` takes an engine: smaller networks, such as upp-mini, are as fast
in PyTorch, and faster where the sizes of images differ."""
SIZE = (512, 512)
"""Height and width, in pixels, at which the multiply-adds of an image are counted for that."""


def on_engine(
    network: Network,
    engine: EngineName = "auto",
    device: torch.device | None = None,
    *,
    images: int = 1,
    reference: bool = False,
    precision: Precision = "float32",
) -> Network:
    """Have an engine run a network.

    `auto` takes OpenVINO on a CPU if it is installed, an image is at least `LEAST` multiply-adds of work, and the graph
    of the network is on disk or there is so much work that preparing the graph pays: `PAYS` multiply-adds in all
    images. Otherwise, and if OpenVINO fails, it takes PyTorch. An engine other than PyTorch computes all tasks but the
    auxiliary ones, in float32.

    Args:
        network: The network in evaluation mode. One that is no `UPerNet` is used as it is. A `UPerNet` may be used up:
            it must not be called any more.
        engine: The engine.
        device: Where to compute; None for the CPU.
        images: How many images will be shown to it, about.
        reference: Leave the network as it is, and run it in PyTorch. In float32 it computes as PyTorch is set, on a GPU
            usually with TF32 in convolutions.
        precision: Arithmetic.

    Returns:
        A network with the same answers up to rounding, on the device.

    Raises:
        UserError: If the engine is not installed, does not compute on the device or in the precision, or contradicts
            `reference`; or if the network does not compute in the precision.
        WorkError: If an engine that was asked for by name fails on the network, or its graph cannot be written.
    """
    device = device or torch.device("cpu")
    if reference and engine not in ("auto", "torch"):
        raise UserError(f"reference is the plain network in PyTorch; leave it out, or engine {engine!r}")
    exact = precision == "float32"
    check_precision(precision, device)
    if not exact and engine not in ("auto", "torch"):
        raise UserError(f"engine {engine} computes in float32 only; leave it out, or precision {precision!r}")
    if not exact and not isinstance(network, UPerNet):
        raise UserError(f"precision {precision}: this network computes in its own; valid: float32")
    if isinstance(network, nn.Module) and (reference or not isinstance(network, UPerNet)):
        network = network.to(device)
        return network if exact or not isinstance(network, UPerNet) else TorchNetwork(network, precision)
    if not isinstance(network, UPerNet):
        if engine not in ("auto", engine_of(network)):
            raise UserError(f"engine {engine}: an exported network runs in {engine_of(network)}; leave the engine out")
        return network
    if engine == "auto" and exact:
        chosen = ENGINES[PREFERRED]
        if device.type in chosen.devices and _is_installed(chosen) and (work := _work(network, images)):
            key = _key(network)
            try:
                if images * work >= PAYS or find_graph(key) is not None:
                    return _start(chosen, network, device, key)
            except (UserError, WorkError) as error:
                print_line(f"upernet: {error}; PyTorch computes instead", sys.stderr)
    elif engine not in ("auto", "torch"):
        chosen = ENGINES[engine]
        if device.type not in chosen.devices:
            raise UserError(f"engine {engine} does not compute on {device}; valid: --device {chosen.devices[0]}")
        if not _is_installed(chosen):
            raise UserError(f"engine {engine} is not installed; pip install 'upernet[{engine}]'")
        return _start(chosen, network, device, _key(network))
    if device.type == "cuda" or precision in HALF:
        # Winograd's transforms would move more memory than they save work on a GPU, and lose too much in 16 bits.
        return TorchNetwork(fuse(network, winograd=False, in_place=True).to(device), precision)
    # On other devices the rewritten form has not been tried.
    return fuse(network, in_place=True) if device.type == "cpu" else network.to(device)


def engine_of(network: Network) -> EngineName:
    """The name of the engine that runs a network."""
    return network.engine.name if isinstance(network, EngineNetwork) else "torch"


def hash_network(network: Network) -> str:
    """Hash of the content of a network: of its tensors, or of the file from which an exported one runs."""
    if isinstance(network, ExportedNetwork):
        return sha256(network.path.read_bytes()).hexdigest()
    return hash_weights(network) if isinstance(network, nn.Module) else ""


def _is_installed(engine: Engine) -> bool:
    return all(name in sys.modules or find_spec(name) is not None for name in engine.packages)


def _work(network: UPerNet, images: int) -> int:
    """Multiply-adds of one image; 0 if that is too little for an engine, or no graph can be on disk for one image."""
    if images == 1 and not graphs_folder().is_dir():
        return 0  # counting takes a third of a second
    work = count_multiply_adds(network, SIZE)["total"]
    return work if work >= LEAST else 0


def _start(engine: Engine, network: UPerNet, device: torch.device, key: str) -> EngineNetwork:
    """The network in the engine, whose graph has this key.

    Raises:
        UserError: If the installed engine does not compute on the device.
        WorkError: If the engine fails on the network, or its graph cannot be written.
    """
    tasks = {name: task for name, task in network.tasks.items() if not task.auxiliary}
    corners = network.upsampling_align_corners
    try:
        folder = find_graph(key)
        if folder is None:
            begin = time.monotonic()
            folder = keep_graph(key, lambda unfinished: _prepare(engine, network, tasks, unfinished))
            seconds = time.monotonic() - begin
            print_line(
                f"upernet: preparing the graph for {engine.name}: {seconds:.1f} s, kept in {folder}, once per model",
                sys.stderr,
            )
        return EngineNetwork(engine, folder, tasks, corners, device)
    except UserError:
        raise
    except OSError as error:
        where = error.filename or graphs_folder()
        raise WorkError(
            f"engine {engine.name}: cannot keep its graph in {where} ({error.strerror or error}); "
            "TORCH_HOME names another folder"
        ) from error
    except Exception as error:
        raise WorkError(f"engine {engine.name} fails on this network ({in_one_line(error)})") from error


def _prepare(engine: Engine, network: UPerNet, tasks: Mapping[str, Task], folder: Path) -> None:
    """Write a graph, and compare its answers with those of the network.

    Raises:
        WorkError: If they differ.
    """
    write_graph(fuse(network), folder / GRAPH, list(tasks))
    image = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(image, list(tasks))
    cpu = torch.device("cpu")
    answers = EngineNetwork(engine, folder, tasks, network.upsampling_align_corners, cpu)(image)
    for name, logits in expected.items():
        difference = relative_difference(answers[name], logits)
        if not difference <= TOLERANCE:
            raise WorkError(
                f"engine {engine.name} does not give the network's answers: logits of {name!r} differ by "
                f"{difference:.1g} of their deviation"
            )


def _key(network: UPerNet) -> str:
    """Names all that the graph of a network depends on."""
    described = {
        "weights": hash_weights(network),
        "model": to_plain(network.config),
        "tasks": {name: to_plain(task) for name, task in network.tasks.items() if not task.auxiliary},
        "code": _code_hash(network),
        "versions": {name: version(name) for name in ("torch", "timm", "upernet", "onnxscript")},
    }
    return sha256(json.dumps(described, default=str).encode()).hexdigest()[:32]


def _code_hash(network: nn.Module) -> str:
    """Hash of the files that hold the code of a network's modules, and of those of this package that rewrite it."""
    rooms = Path(__file__).parents[1]
    files = {path for room in ("model", "fused", "runtimes") for path in (rooms / room).glob("*.py")}
    for kind in {type(module) for module in network.modules()}:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        files |= {Path(file)} if file else set()
    return sha256(b"".join(path.read_bytes() for path in sorted(files) if path.is_file())).hexdigest()
