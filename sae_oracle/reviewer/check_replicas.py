"""Review of a penalty under data parallelism. TensorFlow's replicas alone can be had in a process.

On JAX arrays are global under `keras.distribution`; on torch every rank is a process of its own.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np

from sae_oracle.reviewer.candidates import Explanation, bounded_sum
from sae_oracle.reviewer.check_penalty import Findings, Penalty, evidence, probes
from sae_oracle.reviewer.evaluation import as_number, losses_of
from sae_oracle.reviewer.findings import Evidence, finding
from sae_oracle.reviewer.target import described

REPLICAS = 2


def prepare_replicas() -> bool:
    """Give this process two CPU replicas on TensorFlow; return whether it has them.

    TensorFlow must not have computed anything before.
    """
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # if it has, the devices are what they are
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * REPLICAS
        )
    return len(tf.config.list_logical_devices("CPU")) >= REPLICAS


def review_replicas(
    penalty: Penalty, explanation: Explanation, rho: float, beta: float, findings: Findings
) -> None:
    """Compare the penalty of a batch on two replicas with that of the whole batch.

    Args:
        penalty: A regularizer or a layer.
        explanation: What it computes in one process.
        rho: ρ.
        beta: β.
        findings: Where they go.
    """
    if not prepare_replicas():
        findings.notes.append(
            "replicas are tried on TensorFlow alone, before it has computed anything "
            "(sae-oracle review --replicas --backend tensorflow)"
        )
        return
    import tensorflow as tf

    (x,) = (p for p in probes("activations") if p.shape == (6, 5) and p.max() > 0.5)
    rows = np.array_split(x.astype("float32"), REPLICAS)
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{number}" for number in range(REPLICAS)],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )
    findings.checks.append(f"{REPLICAS} replicas")
    try:
        with strategy.scope():
            made = penalty.make(rho, beta, x.shape[-1])
            layer = (
                made
                if penalty.is_layer
                else keras.layers.Activation("linear", activity_regularizer=made)
            )
            layer.build((None, x.shape[-1]))

        @tf.function
        def step(part: Any) -> Any:
            return sum(losses_of(layer, part)[1])

        parts = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(rows[context.replica_id_in_sync_group])
        )
        values = strategy.experimental_local_results(strategy.run(step, args=(parts,)))
        got = float(np.mean([as_number(value) for value in values]))
    except Exception as error:
        proof = Evidence(f"{REPLICAS} replicas", "a number", described(error))
        findings.add(finding("SAE605", proof, "(Under tf.distribute.)"))
        return
    of_batch = float(np.real(explanation.value(x, rho, beta)))
    of_parts = float(np.mean([np.real(explanation.value(r, rho, beta)) for r in rows]))
    _, bound = bounded_sum(explanation.input, explanation.mean, explanation.divergence, x, rho)
    allowed = 2.0 * abs(explanation.factor(x.shape[0], x.shape[1], beta)) * bound
    if abs(got - of_parts) <= allowed < abs(got - of_batch):
        proof = evidence(f"6 × 5 activations on {REPLICAS} replicas", of_batch, got)
        findings.add(finding("SAE125", proof, "(Each replica takes the mean of its own rows.)"))
