"""The faults: what is done, what must be seen, what must still be there.

`Call`s are checked in the process of the test: they end before any work. `Fault`s are commands of
their own, with stand-ins for the workers that misbehave (stand_in.py), and things that happen to
the command meanwhile (planted.py). `make test` runs the rows of `PART`, `make faults` all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """A call that is refused before any work, with status 2, on one line, leaving no file.

    Args:
        arguments: The command line.
        messages: What must be seen: the option, the value or the range.
        given: Files that are there, by name; `None` is a folder.
    """

    arguments: tuple[str, ...]
    messages: tuple[str, ...]
    given: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join(argument[:40] for argument in self.arguments)


@dataclass(frozen=True)
class Fault:
    """A command to which something happens.

    Args:
        what: What is done.
        arguments: The command line.
        worker: The program of the stand-in.
        status: The exit status that must be seen; negative: killed by that signal.
        messages: What must be seen on standard output or error.
        left: What must be in the folder: "old" or "new" in `out`, "either", "nothing", or names.
        plan: What is planted into the command: see planted.py.
        output: Where standard output goes: "" (a pipe that is read), "closed", "full", "nobody",
            "ascii".
        before: Whether an earlier result is in `out`.
        not_said: What must not be seen.
    """

    what: str
    arguments: tuple[str, ...]
    worker: str
    status: int
    messages: tuple[str, ...] = ()
    left: str | tuple[str, ...] = "old"
    plan: str = ""
    output: str = ""
    before: bool = True
    not_said: tuple[str, ...] = ("Traceback",)
    variables: tuple[tuple[str, str], ...] = ()
    is_part: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.what


NUMBERS = {
    "--hidden": ["0", "-1", "1.5", "nan", "inf", "", "x", "1e3", "1000000000", "9" * 400],
    "--iterations": ["0", "-1", "1.5", "nan", "inf", "", "x", "1e3"],
    "--seed": ["-1", "1.5", "nan", "inf", "", "x", str(2**32), str(2**200), "9" * 5000],
    "--rho": ["0", "1", "-0.1", "1.5", "nan", "inf", "-inf", "", "x", "1e400"],
    "--beta": ["-1", "nan", "inf", "-inf", "", "x", "1e400", "-1e-9"],
    "--weight-decay": ["-1", "nan", "inf", "-inf", "", "x", "1e400", "-1e-9"],
    "--checkpoint-iterations": ["0", "-1", "1.5", "nan", "", "x"],
    "--checkpoint-seconds": ["0", "-1", "nan", "inf", "", "x"],
    "--time-limit": ["0", "-1", "nan", "inf", "", "x", "1e400"],
}


def calls() -> Iterator[Call]:
    """Return every call that is refused."""
    for option, values in NUMBERS.items():
        for value in values:
            yield Call(
                ("train", f"{option}={value}"), (option, value[:10] if "e" not in value else "")
            )
    for command in ("verify", "bench", "review keras_impl:KLSparsity"):
        for value in NUMBERS["--time-limit"]:
            yield Call((*command.split(), f"--time-limit={value}"), ("--time-limit", value))
    for command, limit, value in itertools.product(
        ("review keras_impl:KLSparsity", "verify", "bench", "train"),
        ("memory", "file", "output"),
        ("0", "-1", "1.5", "nan", "", "x"),
    ):
        yield Call((*command.split(), f"--{limit}-limit={value}"), (f"--{limit}-limit", value))
    for command, option, value in (
        ("train", "--backend", "mxnet"),
        ("train", "--backend", "numpy"),
        ("train", "--device", "tpu"),
        ("train", "--output-activation", "relu"),
        ("verify", "--backend", "mxnet"),
        ("verify", "--device", ""),
        ("bench", "--backend", "numpy"),
        ("bench", "--size", "huge"),
        ("review x:Y", "--kind", "optimizer"),
        ("review x:Y", "--backend", "mxnet"),
        ("review x:Y", "--set", "p"),
        ("review x:Y", "--set", "1=2"),
        ("review x:Y", "--set", ""),
    ):
        yield Call((*command.split(), f"{option}={value}"), (option, value))
    for option, values in (
        ("rho", ("2", "0", "1", "-0.1", "nan", "inf")),
        ("beta", ("-1", "nan", "inf")),
        ("weight-decay", ("-1", "nan", "inf")),
    ):
        for value in values:
            arguments = ("review", "keras_impl:KLSparsity", f"--{option}={value}")
            yield Call(arguments, (f"--{option}", value))
    yield Call((), ("command",))
    yield Call(("review",), ("target",))
    yield Call(("dream",), ("dream",))
    yield Call(("verify", "--nothing\x1b[31m"), ("\\x1b[31m",))
    yield Call(("verify", "--nothing\nelse"), ("\\nelse",))
    yield from _files()
    yield from _data()


def _files() -> Iterator[Call]:
    """Result files that cannot be written."""
    long, deep = "n" * 300, "/".join("d" * 200 for _ in range(25))
    options = (("verify", "--json"), ("verify", "--status"), ("bench", "--json"),
               ("review keras_impl:KLSparsity", "--json"), ("train", "--json"),
               ("encode m --data=x.csv --out=c.npy", "--json"), ("explain", "--json"))  # fmt: skip
    for command, option in options:
        start = command.split()
        yield Call((*start, option, ""), (option, "''"))
        yield Call((*start, option, "no/found.json"), ("No such folder", option))
        yield Call((*start, option, "folder"), (option, "folder is a folder"), ("folder/",))
        yield Call((*start, option, "."), (option, "is a folder"))
        yield Call((*start, option, "file/x.json"), (option,), ("file",))
        yield Call((*start, option, long), (option, "too long"))
        yield Call((*start, option, deep), (option, "too long"))
        yield Call((*start, option, "loop/x.json"), (option,), ("loop>loop",))
        yield Call((*start, option, "nul\0.json"), (option, "\\x00"))
        yield Call((*start, option, "/proc/no/such.json"), (option,))
        yield Call((*start, option, "[/x]/\x1b[31m.json"), ("No such folder: [/x]",))
        yield Call((*start, option, "a\nb/x.json"), ("No such folder: a\\nb",))
    yield Call(("verify", "--json", "same", "--status", "./same"), ("must differ",))
    yield Call(("bench", "--json", "same.svg", "--plot", "same.svg"), ("must differ",))
    encode = ("encode", "m", "--data=x.csv")
    for out, json in (("-", "-"), ("-", "/dev/stdout"), ("c.npy", "./c.npy")):
        yield Call((*encode, "--out", out, "--json", json), ("must differ",))
    for name in ("x.doc", "x", "x.", ".svg.txt", "", "x.svg ", "-", "x.json"):
        yield Call(("bench", "--plot", name), ("--plot", name))
    for name in ("no/x.svg", "folder.svg"):
        yield Call(("bench", "--plot", name), ("--plot",), ("folder.svg/",))
    for name, message in (("file", "folder"), ("file/in", "folder"), ("", "''"), (long, "long")):
        yield Call(("verify", "--report", name), ("--report", message), ("file",))
        yield Call(
            ("train", "--out", name), ("--out", message if name != "file/in" else ""), ("file",)
        )
    yield Call(("train", "--out", "loop"), ("--out",), ("loop>loop",))
    yield Call(("train", "--out", "loop/in"), ("--out",), ("loop>loop",))
    yield Call(("train", "--out", "broken"), ("--out",), ("broken>nowhere/at/all",))
    yield Call(("train", "--out", "out"), ("--out", "model.keras"), ("out/model.keras/",))
    yield Call(("train", "--out", "out"), ("--out", "history.json"), ("out/history.json/",))
    yield Call(("train", "--out", "/proc/self/out"), ("--out",))
    yield Call(("train", "--out", "out", "--resume"), ("--resume", "checkpoint.npz"))
    yield Call(("train", "--out", "out"), ("checkpoint.npz",), ("out/checkpoint.npz/",))
    yield Call(("train", "--out", "/dev/null"), ("--out", "folder"))
    yield Call(("bench", "--compare", "no.json"), ("Not a result", "no.json"))
    bench = '{"kind": "sae-oracle bench", "date": "2026", "backends": '
    rows = (
        '{"torch": {"kind": "result", "rows": [{"variant": "KL", "part": 1, "network": 2, "way": 3'
    )
    for content in (
        *("", "{", "[]", "{}", "null", "[" * 100_000, '{"kind": 1}', "\x80", bench + "1}"),
        *(bench + "[1]}", bench + '{"torch": 1}}', bench + '{"torch": {"kind": "result"}}}'),
        *(bench + rows + "}]}}}", bench + rows + ', "ratio": {"median": "x"}}]}}}'),
    ):
        yield Call(("bench", "--compare", "x.json"), ("Not a result",), (f"x.json={content}",))
    yield Call(("bench", "--compare", ""), ("--compare",))
    yield Call(("bench", "--compare", "folder"), ("Not a result",), ("folder/",))


ARRAYS = (
    "vector", "images", "empty", "no-columns", "text", "complex", "pickled", "outside", "below",
    "nan", "infinite", "archive", "not-an-array", "nothing", "bool", "dates", "structured",
    "scalar", "cut-data", "absurd-shape", "negative-shape", "huge-shape", "shape-of-text",
    "no-shape", "deep-header", "version-9", "long-header", "pickle", "huge-dtype",
    *(f"cut-{length}" for length in (1, 5, 6, 7, 8, 9, 10, 20, 64, 100, 127)),
)  # fmt: skip
"""Files of data that cannot be trained on: `arrays.py` writes them."""


ARCHIVES = {
    "several": "It has: a, b",
    "none": "It has: none",
    "objects": "is no .npz file of numbers",
    "vector": "shape (3,)",
    "nan": "Row 0 does not, in column 0",
    "text": "real numbers",
    "no-rows": "shape (0, 3)",
    "damaged": "is no .npz file of numbers",
    **{f"cut-{length}": "is no .npz file of numbers" for length in (0, 1, 4, 30, 100, 250)},
}
"""Files of several arrays that cannot be trained on, and what is said."""

TABLES = {
    "": "no line of numbers",
    "a,b\n": "no line of numbers",
    "\n\n": "no line of numbers",
    "a,b\n0.5,x\n": "Line 2, column 2 is 'x'",
    "0.5,0.5\n\n0.5,\n": "Line 3, column 2 is empty",
    "0.5,b\n0.5,0.5\n": "Line 1, column 2 is 'b'",
    "0.5,nan\n": "Line 1, column 2 is 'nan'",
    "0.5\n-inf\n": "Line 2, column 1 is '-inf'",
    "0.5,1_0\n": "Line 1, column 2 is '1_0'",
    "0.5,0.5\n0.5\n": "Line 2 has 1, line 1 has 2",
    "a,b\n0.5,0.5,0.5\n": "Line 2 has 3, line 1 has 2",
    "a;b\n0.5;0.5\n": "Line 2, column 1 is '0.5;0.5'",
    "\xff\xfe0.5": "is no .csv file in UTF-8",
    "0.5\n\x1b[31m\n": "Line 2, column 1 is",
    '0.5,"0.5\n': "is no .csv file in UTF-8: unexpected end of data",
}
"""Tables that cannot be trained on, and what is said."""


def _data() -> Iterator[Call]:
    for name in ARRAYS:
        yield Call(("train", f"--data={name}.npy"), (f"{name}.npy",), (f"{name}.npy!",))
    for name, message in ARCHIVES.items():
        yield Call(("train", f"--data={name}.npz"), (f"{name}.npz", message), (f"{name}.npz!",))
    for content, message in TABLES.items():
        for option in ("--data", "--validation"):
            yield Call(
                ("train", f"{option}=x.csv"),
                (option, "x.csv", message),
                (f"x.csv={content}",),
            )
    for options, message, given in (
        ("--data=x.csv", "values from 0.5 to 1.5", "x.csv=0.5,1.5"),
        ("--preprocess=pca", "--preprocess", "folder/"),
        ("--preprocess=rescale", "--preprocess", "folder/"),
        ("--data=x.npz --key=c", "no array of the key 'c'. It has: a", "x.npz!"),
        ("--data=several.npz --key=", "no array of the key ''. It has: a, b", "several.npz!"),
        ("--data=half.npy --key=a", "has no keys", "half.npy!"),
        ("--data=x.csv --key=a", "has no keys", "x.csv=0.5"),
        ("--key=a", "--key", "folder/"),
        ("--data=digits --key=a", "--key", "folder/"),
        ("--validation-key=a", "--validation", "folder/"),
        ("--validation=no.csv", "No such file: no.csv", "folder/"),
        ("--validation=folder", "It is a folder: folder", "folder/"),
        ("--validation=several.npz", "It has: a, b", "several.npz!"),
        ("--validation=half.npy", "as many columns as --data, 64. It has 3", "half.npy!"),
        ("--validation=several.npz --validation-key=b", "64. It has 3", "several.npz!"),
    ):
        yield Call(("train", *options.split()), (message,), (given,))
    for options, message, given in (
        ("", "model", ()),
        ("m --data=x.csv", "--out", ("x.csv=0.5",)),
        ("m --out=c.npy", "--data", ()),
        ("m --data=x.csv --out=c.txt", "--out must end in .npy or .csv", ("x.csv=0.5",)),
        ("m --data=x.csv --out=no/c.npy", "No such folder", ("x.csv=0.5",)),
        ("m --data=x.csv --out=c.npy", "No m", ("x.csv=0.5",)),
        ("m --data=x.csv --out=c.npy", "No m/model.keras", ("x.csv=0.5", "m/")),
        ("m --data=no.csv --out=c.npy", "No such file: no.csv", ("m=x",)),
        ("m --data=x.csv --out=c.npy", "Line 1, column 1 is 'x'", ("m=x", "x.csv=x,0.5")),
        ("m --data=several.npz --out=c.npy", "It has: a, b", ("m=x", "several.npz!")),
        ("m --data=x.csv --out=c.npy", "history.json must say", ("m=x", "x.csv=0.5")),
        (
            "m --data=x.csv --out=c.npy", "history.json must say",
            ("m=x", "x.csv=0.5", "history.json={}"),
        ),
        (
            "m --data=x.csv --out=c.npy", "trained on 2 columns. Received 1",
            ("m=x", "x.csv=0.5", 'history.json={"preprocessing": {"kind": "standardize", '
             '"offset": [0, 0], "scale": [1, 1]}}'),
        ),
    ):  # fmt: skip
        yield Call(("encode", *options.split()), (message,), given)
    for name, message in (
        ("no.npy", "No such file: no.npy"),
        ("folder", "folder"),
        ("", "--data"),
        ("n" * 5000, "nnn"),
        ("loop", "loop"),
        ("patches.npy", "No such file"),
        ("[/x].npy", "No such file: [/x].npy"),
        ("\x1b]0;t\x07.npy", "\\x1b]0;t\\x07.npy"),
        ("a\nb", "a\\nb"),
        ("\udcff.npy", "\\udcff.npy"),
        ("fifo", "fifo"),
        ("/dev/zero", "/dev/zero"),
    ):
        yield Call(("train", f"--data={name}"), (message,), ("folder/", "loop>loop", "fifo|"))


OUT = ("train", "--out=out", "--backend=torch")
NUMPY = ("verify", "--backend=numpy")
BENCH = ("bench", "--backend=torch", "--size=small")
REVIEW = ("review", "keras_impl:KLSparsity", "--backend=numpy")

CHANGES = 16
"""More changes of its folder than `train` makes."""


def faults() -> Iterator[Fault]:
    """Return everything that happens to a command."""
    yield from _trainings()
    yield from _outputs()
    yield from _workers()
    yield from _others()


def part(**named: object) -> Fault:
    """Return a fault that `make test` runs too."""
    return Fault(**named, is_part=True)  # type: ignore[arg-type]


def _trainings() -> Iterator[Fault]:
    yield part(what="nothing", arguments=OUT, worker="train()", status=0, left="new")
    yield part(
        what="--out and its parents are missing",
        arguments=("train", "--out=a/b/c", "--backend=torch"),
        worker="train()", status=0, left=("a", "a/b", "a/b/c", "a/b/c/features.png",
        "a/b/c/history.json", "a/b/c/model.keras"), before=False,
    )  # fmt: skip
    yield part(
        what="--out and its parents are missing, and the process fails",
        arguments=("train", "--out=a/b/c", "--backend=torch"),
        worker="begin(); steps(2); raise KeyError('x')", status=70, left="nothing", before=False,
        messages=("KeyError",), not_said=(),
    )  # fmt: skip
    for number in range(1, CHANGES):
        yield Fault(
            what=f"kill -9 at change {number}", arguments=OUT, worker="train()",
            status=-9 if number < 13 else 0, left="either", plan=f"kill {number}",
            is_part=number in (6, 7, 8),
        )  # fmt: skip
        for name in ("ENOSPC", "EACCES", "EIO", "EROFS"):
            yield Fault(
                what=f"{name} at change {number}", arguments=OUT, worker="train()",
                status=-1, left="either", plan=f"{name} {number}",
                is_part=name == "ENOSPC" and number in (3, 6),
            )  # fmt: skip
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            yield Fault(
                what=f"{name} at change {number}", arguments=OUT, worker="train()",
                status=-1, left="either", plan=f"{name} {number}",
                is_part=name == "SIGTERM" and number == 6,
            )  # fmt: skip
    yield part(
        what="--out is a mount point", arguments=OUT, worker="train()", status=0, left="new",
        plan="EXDEV 0",
    )  # fmt: skip
    for name, status in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):
        yield part(
            what=f"{name} in the middle", arguments=OUT, status=status, left="new",
            worker=f"begin(); steps(3); to_command('{name}'); wait(); say(save('x'))",
            messages=("Interrupted after 3 iterations", name, "best weights"),
        )  # fmt: skip
        yield Fault(
            what=f"{name} before the training begins", arguments=OUT, status=status, left="old",
            worker=f"to_command('{name}'); wait(); train()",
            messages=("interrupted", "had not begun"),
        )  # fmt: skip
        yield Fault(
            what=f"{name} before anything was there", arguments=OUT, status=status, left="nothing",
            worker=f"to_command('{name}'); wait(); train()", before=False,
        )  # fmt: skip
        for again in ("SIGINT", "SIGTERM", "SIGHUP"):
            yield Fault(
                what=f"{name}, then {again} while the process saves", arguments=OUT, status=status,
                worker=f"begin(); steps(3); to_command('{name}'); wait(); "
                f"[to_command('{again}') for _ in range(5)]; say(save())", left="new",
                messages=("Interrupted after",), is_part=(name, again) == ("SIGINT", "SIGINT"),
            )  # fmt: skip
        yield Fault(
            what=f"{name} to the process and not to the command", arguments=OUT, status=130,
            worker=f"begin(); steps(3); say(save('interrupted')) # {name}", left="new",
            messages=("Interrupted after",),
        )  # fmt: skip
    yield part(
        what="the time limit", arguments=(*OUT, "--time-limit=0.7"), status=0, left="new",
        worker="begin(); steps(3); wait(); say(save())",
        messages=("--time-limit", "best weights", "(time limit)"),
    )  # fmt: skip
    yield Fault(
        what="the time limit before the training begins", arguments=(*OUT, "--time-limit=0.7"),
        status=2, worker="wait(); wait(); train()", messages=("time limit", "had not begun"),
    )  # fmt: skip
    yield part(
        what="the cost is not finite", arguments=OUT, status=1, messages=("The sparsity term",),
        worker="begin(); say({'kind': 'error', 'error': 'The sparsity term is not finite', "
        "'status': 1})",
    )  # fmt: skip
    yield part(
        what="the process is killed after a checkpoint", arguments=OUT, status=2, before=False,
        worker="begin(); steps(60); (folder().parent / 'checkpoint.npz').write_text('x'); "
        "os.kill(os.getpid(), 9)", messages=("SIGKILL", "--resume goes on from it"),
        left=("out", "out/checkpoint.npz"),
    )  # fmt: skip
    yield part(
        what="a checkpoint of an earlier training", arguments=OUT, status=0, left="new",
        worker="(folder().parent / 'checkpoint.npz').write_text('x'); train()",
    )  # fmt: skip
    yield part(
        what="no picture can be drawn", arguments=OUT, status=0, messages=("Wrote no",),
        worker="r = save(); (folder() / 'kernel.npy').unlink(); say(r)",
        left=("out", "out/history.json", "out/model.keras"),
    )  # fmt: skip
    yield Fault(
        what="a picture of nothing finite", arguments=OUT, status=0, messages=("Wrote no",),
        worker="r = save(); np.save(folder() / 'kernel.npy', np.full((4, 4), np.nan)); say(r)",
        left=("out", "out/history.json", "out/model.keras"), not_said=("Traceback", "Warning"),
    )  # fmt: skip
    for error, status, message in (
        ("MemoryError('12 GiB')", 2, "MemoryError: 12 GiB"),
        ("OSError(28, 'No space left on device')", 2, "no space left"),
        ("RuntimeError('CUDA out of memory. Tried')", 2, "out of memory"),
        ("ValueError('RESOURCE_EXHAUSTED: OOM when')", 2, "RESOURCE_EXHAUSTED"),
        ("ImportError('libcudart.so.12: cannot open')", 2, "libcudart"),
        ("ModuleNotFoundError('keras')", 2, "keras"),
        ("ValueError('[/x] \\x1b[31m\\nline 2')", 70, "[/x] \\x1b[31m line 2"),
        ("AttributeError('x')", 70, "AttributeError"),
        ("RecursionError('x')", 70, "RecursionError"),
        ("AssertionError()", 70, "AssertionError"),
        ("UnicodeDecodeError('utf-8', b'', 0, 1, 'x')", 70, "UnicodeDecodeError"),
    ):
        yield Fault(
            what=f"the process raises {error}", arguments=OUT, status=status, messages=(message,),
            worker=f"begin(); steps(2); raise {error}",
            is_part=error.startswith(("Memory", "Attribute")),
        )  # fmt: skip


def _outputs() -> Iterator[Fault]:
    """Standard output that fails changes nothing, and says nothing."""
    for output in ("closed", "full", "nobody", "ascii"):
        yield part(
            what=f"train, standard output {output}", arguments=OUT, worker="train()", status=0,
            left="new", output=output, not_said=("Traceback", "Exception", "rror"),
        )  # fmt: skip
        yield Fault(
            what=f"train interrupted, standard output {output}", arguments=OUT, status=130,
            worker="begin(); steps(3); to_command('SIGINT'); wait(); say(save())", left="new",
            output=output, not_said=("Traceback", "Exception", "rror"),
        )  # fmt: skip
        for worst, status in ((0.5, 0), (1.5, 1)):
            yield Fault(
                what=f"verify {worst}, standard output {output}", status=status, output=output,
                arguments=(*NUMPY, "--json=v.json", "--status=v.md"), worker=f"verify({worst})",
                left=("v.json", "v.md"), before=False,
                not_said=("Traceback", "Exception", "rror:"), is_part=output == "full",
            )  # fmt: skip
        yield Fault(
            what=f"bench, standard output {output}", arguments=(*BENCH, "--json=b.json"),
            worker="bench()", status=0, left=("b.json",), before=False, output=output,
            not_said=("Traceback", "Exception", "rror:"),
        )  # fmt: skip
        yield Fault(
            what=f"review, standard output {output}", arguments=(*REVIEW, "--json=r.json"),
            worker="review('SAE101')", status=1, left=("r.json",), before=False, output=output,
            not_said=("Traceback", "Exception", "rror:"), is_part=output == "nobody",
        )  # fmt: skip
    for output in ("full", "nobody"):
        for command, worker in ((NUMPY, "verify()"), (REVIEW, "review()"), (BENCH, "bench()")):
            yield Fault(
                what=f"{command[0]} --json -, standard output {output}", status=2, output=output,
                arguments=(*command, "--json=-"), worker=worker, messages=("is not written",),
                left="nothing", before=False, is_part=command == REVIEW,
            )  # fmt: skip
    for command, worker in ((NUMPY, "verify()"), (REVIEW, "review()"), (BENCH, "bench()")):
        for name in ("-", "/dev/stdout", "/dev/fd/1"):
            yield Fault(
                what=f"{command[0]} --json {name}", arguments=(*command, f"--json={name}"),
                worker=worker, status=0, left="nothing", before=False, messages=("JSON",),
                is_part=name == "/dev/stdout",
            )  # fmt: skip


def _workers() -> Iterator[Fault]:
    """Processes that misbehave: what they print is no message, how they end is said."""
    commands = (
        ("train", OUT, "train()", 0), ("verify", NUMPY, "verify()", 0),
        ("bench", BENCH, "bench()", 0), ("review", REVIEW, "review()", 0),
    )  # fmt: skip
    for name, arguments, well, _ in commands:
        left = "old" if name == "train" else "nothing"
        new = "new" if name == "train" else "nothing"
        common = {"arguments": arguments, "before": name == "train"}
        for number in ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"):
            hint = "out of memory?" if number == "SIGKILL" else number
            yield Fault(
                what=f"{name}: the process ends by {number}", **common, status=2, left=left,
                worker=f"print('framework log'); os.kill(os.getpid(), signal.{number})",
                messages=(number, hint), not_said=("Traceback", "framework log"),
                is_part=(name, number) in {("train", "SIGKILL"), ("review", "SIGSEGV")},
            )  # fmt: skip
        for code in (0, 1, 2, 70):
            yield Fault(
                what=f"{name}: the process leaves with {code}", **common, left=left,
                status=2 if name == "review" else 70, worker=f"os._exit({code})",
                messages=(f"ended with status {code}",), is_part=(name, code) == ("verify", 0),
            )  # fmt: skip
        for what, program in (
            ("half a message", "os.write(channel._descriptor, b'half')"),
            ("a forged message", "print('{\"kind\": \"result\", \"review\": {}}', flush=True)"),
            ("a forged message without the number", "os.write(channel._descriptor, "
             "b'{\"kind\": \"result\"}\\n')"),
            ("bytes that are no text", "os.write(channel._descriptor, bytes(range(256)) + b'\\n')"),
            ("a message that is a list", "say([1, 2])"),
            ("a message without a kind", "say({'of': 1})"),
            ("deep JSON", "os.write(channel._descriptor, (channel._nonce + ' ' + '[' * 50000 + "
             "'\\n').encode())"),
        ):  # fmt: skip
            is_whole = what in ("half a message",)
            yield Fault(
                what=f"{name}: {what}, then a death", **common, left=left, status=2,
                worker=f"{program}; os.kill(os.getpid(), 9)", messages=("SIGKILL",),
                is_part=(name, what) == ("review", "a forged message"),
            )  # fmt: skip
            if not is_whole:
                yield Fault(
                    what=f"{name}: {what}, then the right one", **common, left=new, status=0,
                    worker=f"{program}; {well}", is_part=(name, what) == ("train", "deep JSON"),
                )  # fmt: skip
        yield Fault(
            what=f"{name}: much output", **common, left=new, status=0,
            worker=f"[print('x' * 10**6) for _ in range(30)]; {well}", not_said=("xxx",),
        )  # fmt: skip
        yield Fault(
            what=f"{name}: a grandchild that holds everything", **common, left=new, status=0,
            worker=f"grandchild(); {well}", messages=("gone",), is_part=name == "review",
        )  # fmt: skip
        yield Fault(
            what=f"{name}: threads that never end", **common, left=new, status=0,
            worker=f"threading.Thread(target=lambda: time.sleep(1)).start(); {well}",
        )  # fmt: skip
        yield Fault(
            what=f"{name}: kill -9 of the command ends the process", **common, status=-9, left=left,
            worker="note(); to_command('SIGKILL'); time.sleep(600)", messages=("gone",),
            is_part=name in ("train", "review"),
        )  # fmt: skip
        yield Fault(
            what=f"{name}: kill -9 of the command ends what the process has started", **common,
            status=-9, left=left, worker="grandchild(); time.sleep(0.2); to_command('SIGKILL'); "
            "time.sleep(600)", messages=("gone",), is_part=name == "verify",
        )  # fmt: skip
        if name != "train":
            for number, status in (("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)):
                yield Fault(
                    what=f"{name}: {number} ends it at once",
                    arguments=(*arguments, "--json=found.json"), before=False, status=status,
                    worker=f"note(); to_command('{number}'); time.sleep(600)", left="nothing",
                    messages=("gone", "nterrupted"), is_part=(name, number) == ("bench", "SIGTERM"),
                )  # fmt: skip
    for name, arguments in (("verify", NUMPY), ("review", REVIEW)):
        yield Fault(
            what=f"{name}: a process that never ends", arguments=(*arguments, "--time-limit=0.5"),
            worker="time.sleep(600)", status=2, messages=("no end within 0.5 s",), left="nothing",
            before=False, is_part=True,
        )  # fmt: skip
        yield Fault(
            what=f"{name}: a process that prints for ever",
            arguments=(*arguments, "--time-limit=1"), worker="[print('x') for _ in iter(int, 1)]",
            status=2, messages=("no end within 1 s",), left="nothing", before=False,
        )  # fmt: skip
        yield Fault(
            what=f"{name}: a process that says messages for ever",
            arguments=(*arguments, "--time-limit=1"), left="nothing", before=False, status=2,
            worker="[say({'kind': 'step', 'done': 1, 'of': 2}) for _ in iter(int, 1)]",
            messages=("no end within 1 s",),
        )  # fmt: skip
        yield Fault(
            what=f"{name}: a process that cannot be interrupted", left="nothing", before=False,
            arguments=(*arguments, "--time-limit=0.5"), status=2, messages=("no end within 0.5 s",),
            worker="[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)",
        )  # fmt: skip
    for name, arguments in (("review", REVIEW), ("verify", NUMPY), ("train", OUT)):
        is_part = name == "review"
        yield Fault(
            what=f"{name}: more output than is allowed", arguments=(*arguments, "--output-limit=1"),
            worker="[print('x' * 10**6) for _ in range(9)]; time.sleep(600)", status=2,
            before=False, messages=("printed more than 1048576 bytes",), left="nothing",
            not_said=("Traceback", "xxx"), is_part=is_part,
        )  # fmt: skip
        yield Fault(
            what=f"{name}: a larger file than is allowed", arguments=(*arguments, "--file-limit=1"),
            worker="open(os.environ['NOTE'], 'wb').write(b'x' * 2**21)", status=2, before=False,
            messages=("File too large",), left="nothing", is_part=is_part,
        )  # fmt: skip
        yield Fault(
            what=f"{name}: more memory than is allowed",
            arguments=(*arguments, "--memory-limit=2048"), worker="b'x' * 2**32", status=2,
            before=False, messages=("MemoryError",), left="nothing", is_part=is_part,
        )  # fmt: skip


def _others() -> Iterator[Fault]:
    """Text is data; findings, and what could not be found."""
    yield part(what="verify: outside", arguments=NUMPY, worker="verify(1.5)", status=1,
               messages=("OUTSIDE",), left="nothing", before=False)  # fmt: skip
    yield Fault(what="verify: not a number", arguments=NUMPY, worker="verify(float('nan'))",
                status=1, messages=("OUTSIDE",), left="nothing", before=False)  # fmt: skip
    for text in ("[/x]", "[bold]", "\\x1b[31m", "a\\nb", "<b>&", "\\udcff", "]]", "[", "\\\\"):
        message = text if text in ("[/x]", "[bold]", "<b>&", "]]", "[") else ""
        yield Fault(
            what=f"verify: the failure is called {text}", arguments=(*NUMPY, "--json=v.json"),
            worker=f"verify(None, failure='''ValueError: {text}''', elements=0)", status=1,
            messages=(message,), left=("v.json",), before=False, not_said=("Traceback", "\x1b"),
            is_part=text == "[/x]",
        )  # fmt: skip
        yield Fault(
            what=f"review: a reason is called {text}", arguments=(*REVIEW, "--json=r.json"),
            worker=f"review(reason='''{text}''')", status=2,
            messages=(message,), left=("r.json",), before=False, not_said=("Traceback", "\x1b"),
            is_part=text == "\\udcff",
        )  # fmt: skip
        for name, arguments in (("verify", NUMPY), ("bench", BENCH)):
            yield Fault(
                what=f"{name}: an error is called {text}", arguments=(*arguments, "--json=e.json"),
                worker=f"say({{'kind': 'error', 'error': '''{text}''', 'status': 2}})",
                status=2, messages=(message,), left=("e.json",), before=False,
                not_said=("Traceback", "\x1b"),
            )  # fmt: skip
    for plan, number in itertools.product(
        ("ENOSPC", "EACCES", "SIGINT", "SIGTERM", "kill"), (1, 2, 3)
    ):
        yield Fault(
            what=f"verify: {plan} at change {number}", arguments=(*NUMPY, "--json=v.json"),
            worker="verify()", status=-1, plan=f"{plan} {number}", before=False, left="whole",
            is_part=(plan, number) == ("ENOSPC", 3),
        )  # fmt: skip
    yield part(what="review: findings", arguments=REVIEW, worker="review('SAE101')", status=1,
               messages=("SAE101",), left="nothing", before=False)  # fmt: skip
