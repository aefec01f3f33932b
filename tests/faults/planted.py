"""Run first in every process of a fault: puts the stand-in in the place of the workers, and lets
the command fail, or be killed, at a chosen change of its folder (the variable PLAN)."""

import errno
import importlib.util
import os
import signal
import sys

WORKERS = {
    "sae_oracle.workers.encode",
    "sae_oracle.workers.train",
    "sae_oracle.workers.verify",
    "sae_oracle.workers.exercise",
    "sae_oracle.bench.measure",
    "sae_oracle.reviewer",
}


class _Pictures:
    """In the place of Matplotlib, which takes longer than the rest of a command."""

    create_module = staticmethod(lambda spec: None)

    @staticmethod
    def exec_module(module):
        module.feature_figure = module.write_png = lambda *arguments: None
        module.png = lambda figure: b"a picture"


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "sae_oracle.pictures" and not os.environ.get("DRAWS"):
            return importlib.util.spec_from_loader(name, _Pictures)
        if name in WORKERS and os.environ.get("WORKER"):
            return importlib.util.spec_from_file_location(name, os.environ["STAND_IN"])
        return None


sys.meta_path.insert(0, _Finder)

# "kill 3", "SIGTERM 3" or "ENOSPC 3": at the third change of the folder that the command makes.
plan, _, number = os.environ.get("PLAN", "").partition(" ")
changes = 0


def watch(event, arguments):
    global changes
    is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
    )
    if not is_change or "__pycache__" in str(arguments):
        return
    if os.environ["FOLDER"] not in os.path.abspath(os.fsdecode(arguments[0])):
        return
    changes += 1
    if plan == "EXDEV" and event == "os.rename":
        out = os.environ["FOLDER"] + "/out/"
        if not all(os.path.abspath(os.fsdecode(name)).startswith(out) for name in arguments[:2]):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
    if str(changes) != number:
        return
    if plan == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif plan.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, plan))
    else:
        raise OSError(getattr(errno, plan), os.strerror(getattr(errno, plan)))


if plan and "sae_oracle.workers" not in sys.orig_argv:
    sys.addaudithook(watch)
