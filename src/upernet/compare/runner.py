"""One implementation, run in this process or in a fresh one of its own.

This module imports little: it is loaded in the processes whose memory is measured.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upernet.compare.implementation import Opening, Shown
from upernet.data.pool import heed_parent, interrupts_blocked
from upernet.device import arithmetic, is_out_of_memory
from upernet.errors import UserError, WorkError

START = "spawn"
"""How processes start: fresh, so that they hold nothing of this one's memory."""
PATIENCE = 2.0
"""Seconds in which an idle process ends by itself."""


class Runner:
    """An implementation that has given its first answer.

    Attributes:
        version: Version of its software.
        first_use: Seconds from the network in memory to the first answer.
    """

    def __init__(self, opening: Opening, shown: Shown) -> None:
        """Open the implementation and run it once. What it raises is raised."""
        self._trial = shown.trial()
        self._device = self._trial.image.device
        self._context = lambda: arithmetic(self._device, shown.precision)
        unused = io.StringIO()  # other software prints notes
        with self._measuring(), redirect_stdout(unused), redirect_stderr(unused):
            prepare = opening(self._trial)
            begin = time.perf_counter()
            self._implementation = prepare()
            self._implementation.run()
            self._wait()
            self.first_use = time.perf_counter() - begin
        self.version = self._implementation.version

    def run(self) -> tuple[float, float]:
        """Wall time and CPU time of all threads of this process, of one run, in seconds. The device is waited for."""
        with self._measuring():
            self._wait()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            self._implementation.run()
            self._wait()
            return time.perf_counter() - begin, time.process_time() - begin_cpu

    def tensor_memory(self) -> int | None:
        """Peak memory that PyTorch holds in one run, weights included, in bytes; None if it does not know."""
        network = self._implementation.network
        if network is None:
            return None
        self._forget_graphs(network)
        with self._measuring():
            peak = peak_memory(self._implementation.run, self._device)
        weights = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
        return None if peak is None else weights + peak

    def process_memory(self) -> int | None:
        """Peak memory of this process so far, in bytes; None if the system does not tell it."""
        return peak_process_memory()

    def answers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Logits of the trial's first window and label maps, as `Implementation` describes them, on the CPU."""
        with self._measuring():
            logits, ids = self._implementation.logits(), self._implementation.run()
        return {n: v.float().cpu() for n, v in logits.items()}, {n: v.long().cpu() for n, v in ids.items()}

    def counts(self) -> tuple[int | None, int | None]:
        """Numbers of parameters and of multiply-adds for one image, all its windows included; None if not PyTorch's."""
        from upernet.model.counts import counted_multiply_adds  # takes memory, which has been measured by now

        network = self._implementation.network
        if network is None:
            return None, None
        self._forget_graphs(network)
        with self._measuring():
            multiply_adds = counted_multiply_adds(network, self._implementation.logits)[""]
        return sum(p.numel() for p in network.parameters()), multiply_adds * self._trial.window_count

    def end(self) -> None:
        """Let go of the network."""
        del self._implementation

    def _forget_graphs(self, network: nn.Module) -> None:
        """Have the next run start every operation by itself: that of a CUDA graph shows no memory and no operation."""
        if self._device.type == "cuda":
            from upernet.runtimes.pytorch import TorchNetwork  # takes memory, which is not measured there

            if isinstance(network, TorchNetwork):
                network.forget_graphs()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """The state of PyTorch in which everything is measured."""
        tuning, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            with torch.inference_mode(), self._context(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other software warns of sizes in every run
                yield
        finally:
            torch.backends.cudnn.benchmark = tuning


class Apart:
    """A `Runner` in a fresh process of its own, which ends with this one at the latest.

    Attributes:
        version: Version of its software.
        first_use: Seconds from the network in memory to the first answer.
    """

    def __init__(self, opening: Opening, shown: Shown, threads: int) -> None:
        """Start the process, open the implementation there and run it once.

        Args:
            opening: Opens the implementation.
            shown: The trial.
            threads: Number of threads with which the process computes.

        Raises:
            UserError: What the implementation raised.
            WorkError: If it raised another error, or the process was ended.
        """
        context: Any = get_context(START)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, opening, shown, threads), daemon=True)
        try:
            with interrupts_blocked():
                self._process.start()
            theirs.close()  # so that reading tells when the process has gone
            self.version, self.first_use = self._answer()
        except BaseException:
            self.end()
            raise

    def run(self) -> tuple[float, float]:
        """See `Runner.run`."""
        return self._ask("run")

    def tensor_memory(self) -> int | None:
        """See `Runner.tensor_memory`."""
        return self._ask("tensor_memory")

    def process_memory(self) -> int | None:
        """See `Runner.process_memory`."""
        return self._ask("process_memory")

    def answers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `Runner.answers`."""
        logits, ids = ({n: torch.from_numpy(v) for n, v in part.items()} for part in self._ask("answers"))
        return logits, ids

    def counts(self) -> tuple[int | None, int | None]:
        """See `Runner.counts`."""
        return self._ask("counts")

    def end(self) -> None:
        """End the process: it goes by itself once the pipe is closed, unless it is busy."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(PATIENCE)
            self._process.kill()
            self._process.join()

    def _ask(self, name: str) -> Any:
        with suppress(OSError):  # it has gone, and `_answer` tells how
            self._pipe.send(name)
        return self._answer()

    def _answer(self) -> Any:
        try:
            value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"status {code}"
            hint = ", perhaps for lack of memory" if how == "SIGKILL" else ""
            raise WorkError(f"its process ended with {how}{hint}") from None
        if isinstance(value, UserError):
            raise value
        return value


def _serve(pipe: Connection, opening: Opening, shown: Shown, threads: int) -> None:
    """Answer the questions of an `Apart` until it has gone."""
    heed_parent()  # Ctrl-C reaches every process of a terminal; the main process ends this one then
    with open(os.devnull, "wb") as nowhere:  # what compiled code prints, too
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    torch.set_num_threads(threads)
    try:
        runner = Runner(opening, shown)
        pipe.send((runner.version, runner.first_use))
        while True:
            value = getattr(runner, pipe.recv())()
            if isinstance(value, tuple) and isinstance(value[0], dict):  # tensors would be sent as shared memory
                value = tuple({name: tensor.numpy() for name, tensor in part.items()} for part in value)
            pipe.send(value)
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        pipe.send(in_one_line(error))


def in_one_line(error: Exception) -> UserError:
    """The error as one for users: itself, or one line that names its kind."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return WorkError("does not fit into the memory; try a smaller --size or --batch")
    return WorkError(" ".join(f"{type(error).__name__}: {error}".split())[:300])


def peak_process_memory() -> int | None:
    """Peak memory of this process, in bytes; None if the system does not tell it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        if sys.platform == "win32":
            return None
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    # A started process inherits the other figure, `ru_maxrss`, from the one that started it.
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of PyTorch's allocator during a run, beyond what it held before, in bytes; None if it is not known.

    On a CPU the profiler reports every allocation of tensors.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its messages would disturb the progress bar
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak or None
