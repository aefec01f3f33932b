"""What a worker and the command that started it say to each other.

Two pipes that nobody else has: what a framework or the code under review prints is no message, and
a message begins with a number that only the two know. When the command ends, however it ends, the
pipe closes, and the worker ends with everything that it has started. Without a command a worker
prints its messages.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

_descriptor = -1
_nonce = ""
_lock = threading.Lock()

request: Any = None
"""What the command asked for, beside the arguments."""

asked_to_stop: str = ""
"""Why the command wants the work to end; "" until then."""


def say(message: dict[str, Any]) -> None:
    """Send a message to the command, or print it: one JSON line.

    >>> say({"kind": "step", "done": 1, "of": 2})
    {"kind": "step", "done": 1, "of": 2}
    """
    line = json.dumps(message)
    if _descriptor < 0:
        print(line, flush=True)
        return
    data = memoryview(f"{_nonce} {line}\n".encode())
    with _lock:
        while data:
            data = data[os.write(_descriptor, data) :]


def open_channel(from_command: int, to_command: int) -> dict[str, Any]:
    """Use the two pipes; return what the command says first.

    Args:
        from_command: What the command writes to; closed, it ends this process.
        to_command: What it reads.
    """
    global _descriptor, _nonce, request
    for descriptor in (from_command, to_command):
        os.set_inheritable(descriptor, False)
    lines = os.fdopen(from_command, encoding="utf-8")
    first: dict[str, Any] = json.loads(lines.readline() or "{}")
    if not first:
        _end()
    _descriptor, _nonce, request = to_command, first["nonce"], first["request"]
    threading.Thread(target=_attend, args=(lines,), daemon=True).start()
    return first


def _attend(lines: Any) -> None:
    global asked_to_stop
    for line in lines:
        asked_to_stop = line.strip()
        os.kill(os.getpid(), signal.SIGINT)
    _end()


def _end() -> None:
    """End this process and what it has started: nobody waits for them."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def device_or_exit(asked: str) -> str:
    """Return the device in use; say that there is no GPU and exit with 2 where one is asked for.

    Args:
        asked: "cpu" or "gpu".
    """
    import keras

    from keras_impl.backends.process import device_in_use

    backend = keras.config.backend()
    in_use = device_in_use(backend)
    if asked == "gpu" and in_use == "cpu":
        say({"kind": "error", "error": f"no GPU: {backend} sees none", "status": 2})
        raise SystemExit(2)
    return in_use
