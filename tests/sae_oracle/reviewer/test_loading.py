"""Files as people have them: what fails beside the object does not end a review."""

from __future__ import annotations

import textwrap
from pathlib import Path

import keras
import pytest

import keras_impl
from sae_oracle.reviewer.loading import load, loaded
from sae_oracle.reviewer.reading import readings, signature_of
from sae_oracle.reviewer.target import CouldNotReviewError

pytestmark = pytest.mark.only_backends("torch")

PENALTY = '''
def penalty(a, rho=0.1, beta=3.0):
    """The sparsity term of sigmoid units."""
    r = np.mean(a, axis=1)
    kl = rho * np.log(rho / (r + 1e-8)) + (1 - rho) * np.log((1 - rho) / (1 - r + 1e-8))
    return beta * np.sum(kl)
'''


def written(folder: Path, text: str) -> str:
    path = folder / "what_people_have.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(path)


def test_a_demonstration_is_not_run(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "import numpy as np\nimport no_such_package as plt\n"
        + PENALTY
        + "\nopen('ran', 'w')\nx = np.load('absent.npy')\nplt.show()\nwhile True: pass\n",
    )
    review = keras_impl.review(f"{file}:penalty")
    assert review.identifiers == ("SAE105",)
    assert not [note for note in review.notes if "raised" in note]


def test_what_the_object_needs_and_fails_is_one_line(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "import numpy as np\nfrom no_such_package import log\n" + PENALTY.replace("np.log", "log"),
    )
    review = keras_impl.review(f"{file}:penalty")
    assert "needs `no_such_package`, which is not installed" in review.reason
    assert "review a function of it that does without" in review.reason
    (note,) = review.notes
    assert note.startswith("line 2 (`from no_such_package import log`) raised ModuleNotFoundError")


def test_imports_that_went_are_replaced_and_named(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        from keras.engine.topology import Layer, no_such_name
        from keras.layers.core import Dense
        from keras.objectives import kullback_leibler_divergence as kld
        import keras.engine as engine

        class Mine(Layer):
            pass

        things = Mine, Dense, kld, engine
        """,
    )
    found = loaded(f"{file}:things")
    mine, dense, kld, engine = found.thing
    assert issubclass(mine, keras.layers.Layer)
    assert dense is keras.layers.Dense
    assert kld is keras.losses.kl_divergence
    assert engine is keras.layers
    assert found.replaced["Layer"] == "keras.engine.topology.Layer"
    assert loaded(f"{file}:Mine").notes == []


def test_a_lightning_module_is_read_where_lightning_is_not_installed(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        import torch
        import pytorch_lightning as pl

        class Module(pl.LightningModule):
            def __init__(self, n_in=12, n_hidden=5, rho=0.05, beta=2.0):
                super().__init__()
                self.save_hyperparameters()
                self.encoder = torch.nn.Linear(n_in, n_hidden)
                self.decoder = torch.nn.Linear(n_hidden, n_in)

            def training_step(self, batch, batch_idx):
                x, _ = batch
                h = torch.sigmoid(self.encoder(x))
                p, q = self.hparams.rho, h.mean(dim=1)
                kl = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
                error = 0.5 * (self.decoder(h) - x).pow(2).sum(1).mean()
                self.log("loss", error)
                return error + self.hparams.beta * kl.sum()
        """,
    )
    review = keras_impl.review(f"{file}:Module")
    assert "SAE105" in review.identifiers
    assert not set(review.identifiers) - {"SAE105", "SAE401"}


def test_a_cost_that_is_called_wrongly_is_not_accused(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        def cost(theta, args):
            visible, hidden, lam, rho, beta, data = args
            return theta.sum()
        """,
    )
    review = keras_impl.review(f"{file}:cost")
    assert "ValueError" in review.reason
    assert not review.findings


def test_python_2_and_notebooks_are_read(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        %matplotlib inline
        def half(n):
            print "n", n
            for k in xrange(n): pass
            return n / 2
        """,
    )
    assert load(f"{file}:half")(3) == 1.5


def test_a_future_import_holds_for_every_statement(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "from __future__ import annotations\ndef f(x: NotDefined) -> Nothing:\n    return x\n",
    )
    assert load(f"{file}:f").__annotations__ == {"x": "NotDefined", "return": "Nothing"}


def test_what_sets_an_object_up_is_run(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        import os
        os.environ["SET_UP_BY_A_TARGET"] = "1"
        held = []
        held.append(os.environ["SET_UP_BY_A_TARGET"])
        held.append(2)
        held.fit("never")
        """,
    )
    assert load(f"{file}:held") == ["1", 2]


def test_a_typing_slip_and_a_bare_file(tmp_path: Path) -> None:
    file = written(tmp_path, "import numpy as np\n" + PENALTY)
    with pytest.raises(CouldNotReviewError, match="it has penalty"):
        load(f"{file}:penalti")
    assert keras_impl.review(file).identifiers == ("SAE105",)
    written(tmp_path, "import numpy as np\n" + PENALTY + PENALTY.replace("penalty", "second"))
    assert f"{file}:second" in keras_impl.review(file).reason


def test_of_a_file_what_uses_the_rest_is_taken(tmp_path: Path) -> None:
    """Not what it calls, nor what draws or trains; the piece, where the whole is not understood."""
    file = written(
        tmp_path,
        "import numpy as np\n"
        + PENALTY.replace("penalty", "of_one_layer")
        + "def penalty(a, rho=0.1, beta=3.0):\n    return of_one_layer(a, rho, beta)\n"
        "def plot(a):\n    print(np.log(a))\n",
    )
    review = keras_impl.review(file)
    assert (review.target, review.identifiers[0]) == (f"{file}:penalty", "SAE105")
    file = written(
        tmp_path,
        "import numpy as np\n" + PENALTY + "def whole(loader, secret):\n"
        "    return penalty(loader.unknown(secret))\n",
    )
    review = keras_impl.review(file)
    assert (review.target, review.identifiers[0]) == (f"{file}:whole", "SAE105")
    assert "it was not reviewed as a whole" in review.guesses[0]


def test_a_method_is_a_target(tmp_path: Path) -> None:
    method = PENALTY.replace("(a, rho=0.1,", "(self, a,").replace("rho", "self.rho")
    file = written(
        tmp_path,
        "import numpy as np\nclass Cost:\n    def __init__(self, rho=0.1): self.rho = rho\n"
        "    def unused(self): pass\n" + textwrap.indent(method, "    "),
    )
    review = keras_impl.review(f"{file}:Cost.penalty")
    assert review.identifiers == ("SAE105",)


@pytest.mark.parametrize(
    ("written_as", "kinds"),
    [
        ("f(x_hat, x, h)", ["training loss"]),
        ("f(target, output)", ["loss"]),
        ("kl(p, q)", ["means", "means"]),
        ("f(rho, rho_hat)", ["means", "activations"]),
        ("f(rho_hat, rho=0.1)", ["means", "activations"]),
        ("f(hidden, sparsity_weight=3.0)", ["activations"]),
        ("f(theta, visible, hidden, lam, rho, beta, data)", ["cost"]),
        ("f(W1, b1, W2, b2, x)", ["cost"]),
        ("f(model, x)", ["model loss"]),
        ("f(w, lam)", ["weights"]),
        ("f(rho=0.1, beta=3.0)", []),
    ],
)
def test_a_signature_is_read_by_its_names(written_as: str, kinds: list[str]) -> None:
    namespace: dict = {}
    exec(f"def {written_as}: pass", namespace)
    name = written_as.split("(")[0]
    signature = signature_of(namespace[name])
    assert signature is not None
    found = readings(name, signature, {})
    assert [reading.kind for reading in found][: len(kinds)] == kinds
    assert bool(found) == bool(kinds)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def f(a, b, c, d, e): return 1", "name them (--rho NAME"),
        ("def f(a): raise ValueError('no')", "which number is ρ"),
        ("def f(a, rho): return undefined", "--kind activations or means"),
        ("def f(): return 1 / 0", "calling it raised ZeroDivisionError"),
        ("class f:\n    def __init__(self, x): pass\n    def loss(self, a): pass", "--set x=VALUE"),
        ("class f: pass", "no method that computes anything"),
        ("f = 3.0", ""),
        ("f = [1]", ""),
        ("import json as f", ""),
    ],
)
def test_whatever_is_given_a_review_ends_with_a_sentence(
    body: str, words: str, tmp_path: Path
) -> None:
    review = keras_impl.review(f"{written(tmp_path, body)}:f")
    assert review.findings == ()
    assert words in review.reason
    assert review.reason
