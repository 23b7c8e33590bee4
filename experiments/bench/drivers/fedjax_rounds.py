"""FedAvg by Google's fedjax, clients one after the other through one jitted step: its default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np

from experiments.bench.drivers import record
from experiments.bench.drivers.record import Array

if not hasattr(jax, "tree_map"):  # newer releases of JAX lack it, and fedjax 0.0.17 calls it
    jax.tree_map = jax.tree_util.tree_map
import fedjax  # type: ignore[import-not-found]

HIDDEN = 256


def softmax(p: Mapping[str, Any], x: Any) -> Any:
    """Softmax regression."""
    return _linear(p, "1", x.reshape(len(x), -1))


def mlp(p: Mapping[str, Any], x: Any) -> Any:
    """McMahan's 2NN."""
    h = jax.nn.relu(_linear(p, "1", x.reshape(len(x), -1)))
    return _linear(p, "5", jax.nn.relu(_linear(p, "3", h)))


def cnn(p: Mapping[str, Any], x: Any) -> Any:
    """McMahan's CNN, channels last inside: that is the faster layout of XLA on a CPU."""
    h = jnp.moveaxis(x, 1, -1)
    for name in ("0", "3"):
        layout = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(h, p[f"{name}.weight"], (1, 1), "SAME", dimension_numbers=layout)
        h = jax.nn.relu(h + p[f"{name}.bias"])
        h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = jnp.moveaxis(h, -1, 1).reshape(len(x), -1)
    return _linear(p, "9", jax.nn.relu(_linear(p, "7", h)))


def lstm(p: Mapping[str, Any], x: Any) -> Any:
    """LEAF's model of the next character; gates in PyTorch's order."""
    h = p["0.weight"][x]
    for layer in ("l0", "l1"):
        into = h @ p[f"1.weight_ih_{layer}"] + p[f"1.bias_ih_{layer}"] + p[f"1.bias_hh_{layer}"]
        recurrent = p[f"1.weight_hh_{layer}"]

        def step(state: Any, now: Any, recurrent: Any = recurrent) -> Any:
            out, cell = state
            i, f, g, o = jnp.split(now + out @ recurrent, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            out = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (out, cell), out

        zero = jnp.zeros((len(x), HIDDEN), jnp.float32)
        h = jnp.moveaxis(jax.lax.scan(step, (zero, zero), jnp.moveaxis(into, 1, 0))[1], 0, 1)
    return _linear(p, "2", h)


NETWORKS: Mapping[str, Callable[[Mapping[str, Any], Any], Any]] = {
    "softmax": softmax,
    "mlp": mlp,
    "cnn": cnn,
    "lstm": lstm,
}


def main() -> None:
    """Run the task of this process."""
    task, rounds = record.read_task(), record.Rounds()
    forward = NETWORKS[task.model]

    def loss(parameters: Mapping[str, Any], batch: Mapping[str, Any], rng: Any = None) -> Any:
        chances = jax.nn.log_softmax(forward(parameters, batch["x"]))
        return -jnp.mean(jnp.take_along_axis(chances, batch["y"][..., None], -1))

    x, y = record.examples(task)
    data = fedjax.InMemoryFederatedData(
        {client: {"x": x[client], "y": y[client].astype(np.int32)} for client in range(task.clients)}
    )
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        grad_fn=jax.jit(jax.grad(loss)),
        client_optimizer=fedjax.optimizers.sgd(task.learning_rate),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(batch_size=task.batch_size, num_epochs=task.epochs),
    )
    sampler = fedjax.client_samplers.UniformGetClientSampler(data, num_clients=task.cohort, seed=task.seed)
    state = algorithm.init({name: jnp.asarray(_turned(name, value)) for name, value in record.start(task).items()})
    for number in range(task.rounds):
        sampler.set_round_num(number)
        state, _ = algorithm.apply(state, sampler.sample())
        jax.block_until_ready(state.params)
        rounds.end()
    final = record.start(task)
    rounds.save(task, {name: _turned_back(name, np.asarray(state.params[name])) for name in final})


def _linear(p: Mapping[str, Any], name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def _turned(name: str, value: Array) -> Array:
    """PyTorch's (out, in) as JAX multiplies it, (in, out); a kernel's (O, I, H, W) as (H, W, I, O)."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 and not _is_embedding(name, value) else value


def _turned_back(name: str, value: Array) -> Array:
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 and not _is_embedding(name, value) else value


def _is_embedding(name: str, value: Array) -> bool:
    return name == "0.weight" and value.ndim == 2


if __name__ == "__main__":
    main()
