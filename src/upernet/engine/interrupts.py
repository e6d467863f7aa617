"""Ctrl-C and the signal with which job schedulers end a process, noted until a training step is finished."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Only note the first SIGINT or SIGTERM while the block runs. The second one interrupts at once.

    SIGTERM is what torchrun and job schedulers send before they kill. In a thread other than the main one no signal can
    be noted, and none is.

    Yields:
        A function that tells whether a signal has come.
    """
    noted = False

    def note(signum: int, frame: Any) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(one, note) for one in signals]
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: noted
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
