"""What is measured: the networks, and how many timings each gets."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    """A network features-units-features and its batch.

    Args:
        name: Its name on the command line and in the tables.
        features: Inputs, and outputs.
        units: Hidden units.
        rows: Samples in a batch.
        steps: How many steps in succession give one timing, their minimum.
        rounds: How often each variant is timed.
    """

    name: str
    features: int
    units: int
    rows: int
    steps: int
    rounds: int

    def __str__(self) -> str:
        """Say the network and the batch."""
        return f"{self.features:,}-{self.units:,}-{self.features:,}, {self.rows:,} rows"


SMALL = Size("small", 64, 25, 1000, steps=8, rounds=40)
MNIST = Size("mnist", 784, 196, 256, steps=5, rounds=40)
# A step takes 0.1 s there in full float32, and nothing else runs.
WIDE_ON_GPU = Size("wide", 4096, 32768, 4096, steps=1, rounds=10)
WIDE_ON_CPU = Size("wide", 512, 4096, 512, steps=2, rounds=12)

NAMES = ("small", "mnist", "wide", "sweep")


def sizes_for(name: str, device: str) -> tuple[Size, ...]:
    """Return the networks behind a name: several for "sweep", else one.

    >>> str(*sizes_for("mnist", "cpu"))
    '784-196-784, 256 rows'
    """
    if name == "sweep":
        return sweep(device)
    wide = WIDE_ON_GPU if device == "gpu" else WIDE_ON_CPU
    return ({"small": SMALL, "mnist": MNIST, "wide": wide}[name],)


def sweep(device: str) -> tuple[Size, ...]:
    """Return the sizes that show how the cost grows: over the batch, then over the width.

    >>> [size.units for size in sweep("cpu") if size.name == "width"]
    [64, 256, 1024, 4096]
    """
    scale = 16 if device == "gpu" else 1
    batch = replace(MNIST, name="batch", rounds=15, steps=3)
    width = replace(batch, name="width")
    return (
        *(replace(batch, rows=rows * scale) for rows in (64, 256, 1024, 4096)),
        *(replace(width, units=units * scale) for units in (64, 256, 1024, 4096)),
    )
