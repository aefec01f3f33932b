"""Everything that asks which backend this is. Above it nothing does."""

from importlib.util import find_spec

BACKENDS = ("jax", "tensorflow", "torch", "openvino", "numpy")
"""Those of Keras; the last two have no gradients."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in BACKENDS:
        raise
    installed = [name for name in BACKENDS if find_spec(name)]
    raise ImportError(
        f"Keras is to run on {error.name}, which is not installed. Installed: "
        f"{', '.join(installed)}. Choose one before Python starts, as in "
        f"`export KERAS_BACKEND={installed[0]}`, or install another: "
        f"`pip install 'sae-oracle[{error.name}]'`."
    ) from None
