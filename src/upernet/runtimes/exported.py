"""Running a network that was exported as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from upernet.contract import Task
from upernet.runtimes.engine import EngineNetwork, Run
from upernet.runtimes.onnxruntime import ONNXRuntime, open_graph


class _ExportedFile(ONNXRuntime):
    """ONNX Runtime on one file, in place of a folder that it has written itself."""

    def open(self, folder: Path, outputs: Sequence[int], threads: int, device: torch.device) -> Run:
        """Open a session on a file."""
        return open_graph(folder, outputs, threads, device)


class ExportedNetwork(EngineNetwork):
    """The network in an ONNX file. It computes on the CPU.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, tasks: Mapping[str, Task], align_corners: bool) -> None:
        """Open the file.

        Args:
            path: A file that has been checked; see `upernet.store.exported`.
            tasks: The tasks whose logits it gives, in the order of its outputs.
            align_corners: Bilinear convention with which its logits are resized to the size of the answer.

        Raises:
            Exception: Whatever ONNX Runtime raises if it cannot open the file.
        """
        self.path = path
        super().__init__(_ExportedFile(), path, tasks, align_corners, torch.device("cpu"))
