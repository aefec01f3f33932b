"""Train every case under MirroredStrategy on 1, 2 and 4 logical CPUs of one process.

python -m tests.keras_impl.replicas.on_tensorflow OUT
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tests.keras_impl.replicas import cases


def main(path: str) -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    found = cases.Found()
    x = cases.data(24)
    train(found, mirrored(1), cases.FEW[0], 1, x)
    strategy_of_2, four = mirrored(2), mirrored(4)
    # By `fit` each object once (the layer on one and on four), and the rest by its step, in a third
    # of the time.
    for kind in cases.KINDS:
        fitted = kind in (*cases.FEW[1:3], "KLSparsityRegularizer")
        (train if fitted else train_by_hand)(found, strategy_of_2, kind, "2", x)
    for kind in cases.FEW:
        (train if kind == cases.FEW[0] else train_by_hand)(found, four, kind, "4", x)
    for rows in (23, 1):
        for kind in cases.UNEVEN[1:]:
            train_by_hand(found, strategy_of_2, kind, f"rows {rows}", cases.data(rows))
    train_by_hand(found, strategy_of_2, cases.FEW[-1], "eager", x, eagerly=True)
    short_last_batch(found, strategy_of_2)
    other_losses(found, strategy_of_2)
    found.write(path)


def mirrored(replicas: int) -> Any:
    import tensorflow as tf

    # Several strategies in one CPU process must not share the default's collectives.
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )


def train(found: cases.Found, strategy: Any, kind: str, key: Any, x: Any) -> None:
    model = cases.build(kind, scope=strategy.scope())
    if "average" not in kind:
        found.add(kind, key, gradient=gradient(strategy, model, x))
    history = model.fit(
        x, x, batch_size=len(x), epochs=cases.STEPS, shuffle=False, verbose=0
    ).history
    found.add(
        kind,
        key,
        weights=cases.weights(model),
        **{name: np.array(values) for name, values in history.items()},
    )
    add_state(found, strategy, model, kind, key)


def add_state(found: cases.Found, strategy: Any, model: Any, kind: str, key: Any) -> None:
    if "average" in kind:
        copies = strategy.experimental_local_results(model.layers[1].rho_hat.value)
        found.add(kind, key, state=[copy.numpy() for copy in copies])


def shares(strategy: Any, x: Any) -> Any:
    """The rows of each replica; the first ones have one more if they do not divide."""
    parts = np.array_split(x, strategy.num_replicas_in_sync)
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )


def gradient(strategy: Any, model: Any, x: Any) -> Any:
    """What the optimizer of `fit` adds up: the gradients of the replicas' losses."""
    import tensorflow as tf

    variables = cases.variables(model)

    def on_replica(rows: Any) -> Any:
        with tf.GradientTape() as tape:
            output = model(rows, training=True)
            loss = model.compute_loss(x=rows, y=rows, y_pred=output)
        return tape.gradient(loss, [variable.value for variable in variables])

    parts = strategy.run(on_replica, args=(shares(strategy, x),))
    return [strategy.reduce("SUM", part, axis=None).numpy() for part in parts]


def train_by_hand(
    found: cases.Found, strategy: Any, kind: str, key: Any, x: Any, eagerly: bool = False
) -> None:
    """The step of `fit` in a loop of one's own, on a batch that does not divide."""
    import tensorflow as tf

    model = cases.build(kind, scope=strategy.scope())
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    if "average" not in kind:
        found.add(kind, key, gradient=gradient(strategy, model, x))
    rows = shares(strategy, x)

    def step() -> Any:
        strategy.run(model.train_step, args=((rows, rows),))

    step = step if eagerly else tf.function(step)
    losses = []
    for _ in range(cases.STEPS):
        model.reset_metrics()
        step()
        losses.append(float(model.metrics[0].result()))
    found.add(kind, key, loss=np.array(losses), weights=cases.weights(model))
    add_state(found, strategy, model, kind, key)


def short_last_batch(found: cases.Found, strategy: Any) -> None:
    """Plain `fit` on 47 rows, 24 and then 12 + 11."""
    with strategy.scope():
        model = cases.build("SparseAutoencoder")
    history = model.fit(cases.data(47), batch_size=24, shuffle=False, verbose=0).history
    found.add("short", "last", weights=cases.weights(model), loss=np.array(history["loss"]))


def other_losses(found: cases.Found, strategy: Any) -> None:
    """An activity loss of another layer, before ours, survives the wait for other replicas."""
    import keras
    import tensorflow as tf

    from keras_impl import KLSparsity

    x = cases.data(24)
    for replicas in (1, 2):
        with (strategy if replicas == 2 else tf.distribute.get_strategy()).scope():
            model = keras.Sequential(
                [
                    keras.Input((cases.FEATURES,)),
                    keras.layers.Dense(4, activation="sigmoid", activity_regularizer="l2"),
                    KLSparsity(cases.RHO, cases.BETA, momentum=cases.MOMENTUM),
                    keras.layers.Dense(4, activation="sigmoid", activity_regularizer="l2"),
                    KLSparsity(cases.RHO, cases.BETA),
                    keras.layers.Dense(cases.FEATURES),
                ]
            )
            for i, variable in enumerate(model.trainable_variables):
                generator = np.random.default_rng(i)
                variable.assign(generator.normal(size=variable.shape).astype("float32"))
            model.compile(keras.optimizers.SGD(cases.RATE), loss="mse")
        history = model.fit(x, x, batch_size=24, epochs=3, shuffle=False, verbose=0).history
        found.add("others", replicas, loss=np.array(history["loss"]), weights=model.get_weights())


if __name__ == "__main__":
    main(sys.argv[1])
