"""Running a network that was exported as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(graph: Path | bytes, threads: int | None = None) -> InferenceSession:
    """Open a graph in ONNX Runtime, on the CPU.

    Args:
        graph: The file, or its content.
        threads: Number of threads; None for that of PyTorch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads, options.inter_op_num_threads = threads or torch.get_num_threads(), 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_session(session: InferenceSession, image: Tensor, outputs: Sequence[str] | None = None) -> list[Tensor]:
    """Run a graph that has the input `image`; None asks for all outputs."""
    return [torch.from_numpy(value) for value in session.run(outputs, {"image": image.contiguous().cpu().numpy()})]


class ExportedNetwork:
    """The network in an ONNX file, called as `upernet.inference.views.Network` describes. It computes on the CPU.

    Attributes:
        path: The file.
        upsampling_align_corners: Bilinear convention with which its logits are resized to the size of the answer.
    """

    def __init__(self, path: Path, align_corners: bool) -> None:
        """Open the file.

        Args:
            path: A file that has been checked; see `upernet.store.exported`.
            align_corners: See `upsampling_align_corners`.

        Raises:
            Exception: Whatever ONNX Runtime raises if it cannot open the file.
        """
        self.path = path
        self.upsampling_align_corners = align_corners
        self._threads = torch.get_num_threads()
        self._session = open_session(path, self._threads)

    def __call__(self, image: Tensor, tasks: Sequence[str], /) -> dict[str, Tensor]:
        """Logits by task, (B, K, h, w) or (B, K) float32, of (B, 3, H, W) float32 RGB in [0, 1]."""
        if torch.get_num_threads() != self._threads:
            self._threads = torch.get_num_threads()
            self._session = open_session(self.path, self._threads)
        logits = run_session(self._session, image, list(tasks))
        return {name: value.to(image.device) for name, value in zip(tasks, logits, strict=True)}
