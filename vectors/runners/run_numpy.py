"""Hold a NumPy cost of the notes' signature to EQ-COST: python run_numpy.py MODULE:FUNCTION."""
# FUNCTION(theta, visible, hidden, weight_decay, rho, beta, data) returns the cost and its gradient.
# A column of data is a sample; theta is W1, W2, b1, b2, each column by column.

import importlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, ".")
module, _, name = sys.argv[1].partition(":")
cost = getattr(importlib.import_module(module), name)
file = Path(__file__).resolve().parents[1] / "EQ-COST.json"
NUMBERS, usages = ("weight_decay", "rho", "beta"), []
for vector in json.loads(file.read_text(encoding="utf-8"))["vectors"]:
    given, outputs = vector["inputs"], {o["name"]: o for o in vector["outputs"]}
    network = given["parameters"]
    if set(given) != {"parameters", "x", *NUMBERS} or network["tied"] or len(network["sizes"]) != 3:
        print(vector["id"], "- not run")
        continue
    data = np.reshape(given["x"]["data"], given["x"]["shape"]).T
    try:
        usage = 0.0
        numbers = [given[key] for key in NUMBERS]
        found = cost(np.array(network["theta"]), *network["sizes"][:2], *numbers, data)
        for output, actual in zip((outputs["value"], outputs["gradient"]), found, strict=True):
            if list(np.shape(actual)) != output["shape"]:
                raise ValueError(f"{output['name']} must have shape {output['shape']}")
            exact, bounds = map(float, output["digits"]), output["bounds"]["float64"]
            for a, d, b in zip(np.ravel(actual), exact, bounds, strict=True):
                if np.isnan(a) or (b is not None and a != d):
                    usage = max(usage, abs(a - d) / b if b and not np.isnan(a) else np.inf)
    except Exception as error:
        usage = np.inf
        print(f"{vector['id']}: {error}", file=sys.stderr)
    print(vector["id"], f"{usage:.3g}", "passed" if usage <= 1 else "failed")
    usages.append(usage)
sys.exit(int(max(usages) > 1) if usages else 2)
