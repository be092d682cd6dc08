"""Ctrl-C, politely: the run finishes its step, saves, and says how to go on."""

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal after saving; the message says how to go on."""

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupts:
    """While entered, the first Ctrl-C (or SIGTERM) only sets ``received``; the second acts at once.

    Outside the main thread, where Python allows no handlers, signals are left alone.
    """

    def __init__(self):
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()
        # Not print: the signal may have arrived in the middle of one.
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping: saving after this step. Ctrl-C again stops at once.\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
