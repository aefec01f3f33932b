"""Hold a PyTorch cost of the notes' signature to EQ-COST: python run_torch.py MODULE:FUNCTION."""
# FUNCTION(theta, visible, hidden, weight_decay, rho, beta, data) returns the cost, and autograd its
# gradient. A column of data is a sample; theta is W1, W2, b1, b2, each column by column. A last
# argument float32 computes in that, and holds its bounds.

import importlib
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, ".")
precision = sys.argv[2] if len(sys.argv) > 2 else "float64"
module, _, name = sys.argv[1].partition(":")
cost, dtype = getattr(importlib.import_module(module), name), getattr(torch, precision)
file = Path(__file__).resolve().parents[1] / "EQ-COST.json"
NUMBERS, usages = ("weight_decay", "rho", "beta"), []
for vector in json.loads(file.read_text(encoding="utf-8"))["vectors"]:
    given, outputs = vector["inputs"], {o["name"]: o for o in vector["outputs"]}
    network = given["parameters"]
    if set(given) != {"parameters", "x", *NUMBERS} or network["tied"] or len(network["sizes"]) != 3:
        print(vector["id"], "- not run")
        continue
    data = torch.tensor(given["x"]["data"], dtype=dtype).reshape(given["x"]["shape"]).T
    theta = torch.tensor(network["theta"], dtype=dtype, requires_grad=True)
    try:
        value = cost(theta, *network["sizes"][:2], *(given[key] for key in NUMBERS), data)
        found, usage = (value, *torch.autograd.grad(value, theta)), 0.0
        for output, actual in zip((outputs["value"], outputs["gradient"]), found, strict=True):
            exact, bounds = map(float, output["digits"]), output["bounds"][precision]
            for a, d, b in zip(actual.reshape(-1).tolist(), exact, bounds, strict=True):
                if a != a or (b is not None and a != d):
                    usage = max(usage, abs(a - d) / b if b and a == a else float("inf"))
    except Exception as error:
        usage = float("inf")
        print(f"{vector['id']}: {error}", file=sys.stderr)
    print(vector["id"], f"{usage:.3g}", "passed" if usage <= 1 else "failed")
    usages.append(usage)
sys.exit(int(max(usages) > 1) if usages else 2)
