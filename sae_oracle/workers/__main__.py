"""`python -P -m sae_oracle.workers FROM TO MODULE ...`: a worker, as a command starts it.

FROM and TO are the descriptors of the pipes. Before anything is imported that takes time, the
worker attends to its command; and what it raises is said as one line.
"""

from __future__ import annotations

import errno
import resource
import runpy
import signal
import sys
import traceback

from sae_oracle.names import find_our_own
from sae_oracle.workers import channel

COULD_NOT, BUG = 2, 70


def status_of(error: BaseException) -> int:
    """Return the exit status of an exception: is it the machine, or a mistake of ours?

    >>> status_of(MemoryError()), status_of(KeyError())
    (2, 70)
    """
    if isinstance(error, (MemoryError, OSError, ImportError, KeyboardInterrupt)):
        return COULD_NOT
    frames = traceback.extract_tb(error.__traceback__)
    if any(frame.filename.endswith("keras/src/backend/config.py") for frame in frames):
        return COULD_NOT  # what keras.json says
    # What the backends raise if there is too little memory has no type in common.
    text = f"{type(error).__name__} {error}".lower()
    signs = ("out of memory", "outofmemory", "resource_exhausted", "allocate memory", "oom when")
    return COULD_NOT if any(sign in text for sign in signs) else BUG


def main() -> None:
    """Attend to the command, and run the module."""
    # A shell that starts the command in the background has it ignore Ctrl-C, and so its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    first = channel.open_channel(int(sys.argv[1]), int(sys.argv[2]))
    for name, limit in first["limits"].items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(which, (limit, hard))
    find_our_own()
    module = sys.argv[3]
    sys.argv[:] = [module, *sys.argv[4:]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except (Exception, KeyboardInterrupt) as error:
        traceback.print_exc()
        status = status_of(error)
        reason = " ".join(str(error).split()) or "no reason given"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            reason = "no space left on the disk"
        text = "interrupted" if isinstance(error, KeyboardInterrupt) else reason[:1000]
        channel.say({"kind": "error", "error": f"{type(error).__name__}: {text}", "status": status})
        sys.exit(status)


if __name__ == "__main__":
    main()
