"""A thread that does one small thing regularly until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Heartbeat:
    """Calls ``beat`` every ``seconds``. A daemon: it never keeps a process alive."""

    def __init__(self, beat: Callable[[], None], seconds: float, name: str) -> None:
        self._beat = beat
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"evomerge heartbeat of {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._beat()

    def stop(self) -> None:
        """End the thread and wait for it. Safe to call twice, and from the thread itself."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
