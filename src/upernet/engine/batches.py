"""The batches of a training run, read ahead by processes that outlive the signal to stop by a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator

import torch
from torch.utils.data import DataLoader

from upernet.data.mixture import SourceMixture
from upernet.data.sample import Batch
from upernet.errors import UserError, WorkError

LAST_SECONDS = 60
"""Seconds that a reading process lives on after the signal to stop. Schedulers kill after 30."""


def batches(mixture: SourceMixture, first: int, *, workers: int, pin_memory: bool) -> Generator[Batch | UserError]:
    """The batches of a mixture in order. Once the generator is closed, no process reads images any more.

    Args:
        mixture: Gives batches by number.
        first: Number of the first batch.
        workers: Processes that read ahead; 0 reads in this one.
        pin_memory: Whether batches are put into page-locked memory, from which a GPU copies faster.
    """
    loader = DataLoader(
        mixture,
        batch_size=None,
        sampler=range(first, len(mixture)),
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own seed shall not come from the generator that dropout draws from
    )
    iterator = iter(loader)
    if workers and threading.current_thread() is threading.main_thread():
        # torch would raise at a worker's death in the middle of a step; `next_batch` finds out by itself.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield from iterator


def next_batch(iterator: Iterator[Batch | UserError]) -> Batch | UserError:
    """The next batch, or the error that replaces it: its data are faulty, or its reading process has died."""
    try:
        return next(iterator)
    except (RuntimeError, OSError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return WorkError(f"a process that reads images has died ({reason}); lower data.workers")


def _start_worker(_: int) -> None:
    """Give a reading process one thread, and let it live on when all processes are told to stop.

    The main process finishes its step first and then ends this one.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LAST_SECONDS))
