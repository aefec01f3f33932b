"""`keras_impl.backends.replicas`, at the address that programs of several devices know."""

from keras_impl.backends.replicas import (
    logsumexp_over_replicas,
    logsumexp_over_workers,
    require_equal_on_workers,
    share_of_loss,
    sum_over_replicas,
    sum_over_workers,
    worker_count,
)

__all__ = [
    "logsumexp_over_replicas",
    "logsumexp_over_workers",
    "require_equal_on_workers",
    "share_of_loss",
    "sum_over_replicas",
    "sum_over_workers",
    "worker_count",
]
