"""Everything that asks which backend this is. Above it nothing does."""

from importlib.util import find_spec

_PACKAGES = ("jax", "tensorflow", "torch", "openvino")
"""What Keras computes with; its NumPy backend needs JAX too."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in _PACKAGES:
        raise
    found = [name for name in _PACKAGES if find_spec(name)]
    remedy = f"`pip install 'sae-oracle[{error.name}]'`"
    if found:
        remedy += f", or before Python starts choose what is: `export KERAS_BACKEND={found[0]}`"
    raise ImportError(
        f"Keras is to compute with {error.name}, which is not installed "
        f"(installed: {', '.join(found) or 'nothing that it could'}). {remedy}."
    ) from None
