"""One process, one backend: its dtypes, versions and device."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from contextlib import AbstractContextManager, nullcontext

import keras


def use_dtype(dtype: str) -> None:
    """Make a dtype real: Keras's floatx, and JAX's switch for 64 bits."""
    keras.config.set_floatx(dtype)
    if keras.config.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", dtype == "float64")


def dtype_within(dtype: str) -> AbstractContextManager[object]:
    """Return a context in which a dtype is real; JAX has float64 only where it is asked for.

    Nothing outside of it changes, in this thread or in another.

    >>> with dtype_within("float64"):
    ...     keras.backend.standardize_dtype(keras.ops.ones(1, dtype="float64").dtype)
    'float64'
    """
    if dtype != "float64" or keras.config.backend() != "jax":
        return nullcontext()
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before JAX 0.8

    return enable_x64()


def versions(backend: str) -> dict[str, str]:
    """The versions that the result depends on."""
    packages = {"keras": "keras", "numpy": "numpy"}
    if backend not in packages:
        packages[backend] = backend
    found = {}
    for name, package in packages.items():
        module = sys.modules.get(package)
        version = getattr(module, "__version__", None)
        found[name] = str(version or importlib.metadata.version(package))
    return {"python": platform.python_version(), **found}


def device_in_use(backend: str) -> str:
    """The device that the backend computes on, as it names it."""
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return "cpu" if device.platform == "cpu" else str(device.device_kind)
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu"))
    return "cpu"


def full_float32_products() -> None:
    """Turn TF32 off, so that float32 is float32 on a GPU too."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        # The first call of a process into torch's vector mathematics may return wrong digits
        # (pytorch issue 188792).
        for function in (torch.log, torch.exp, torch.log1p, torch.tanh, torch.sigmoid):
            function(torch.ones(1))
