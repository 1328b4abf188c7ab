"""From programs to networks: a small policy in JAX that imitates what a run's programs did.

It reads datasets that `surefoot export` wrote, fits a network to the actions that were sent, measures it on seeds that
it was not fitted to, and lets it drive Gymnasium's own environment.

    surefoot run half_cheetah-rhythm --episodes 25 --seed 100 --out runs/demonstration
    surefoot export runs/demonstration --format minari --out runs/datasets
    python -m agent_bridge.examples.imitate surefoot/half_cheetah --data runs/datasets

Ticks in which a rule or a fallback intervened are left out: what the guard did is not what the program would do.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import jax
import jax.numpy as jnp
import minari
import numpy as np
import typer

from agent_bridge.records.export_minari import datasets_in

WIDTH = 64
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8
"""Adam (Kingma and Ba 2015)."""
Params = list[tuple[jax.Array, jax.Array]]


def load(name: str, split: str, data: Path) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Observations (n, d) and actions (n, nu) of a split, and the return of each of its episodes."""
    with datasets_in(data):
        found = minari.load_dataset(f"{name}/{split}-v0")
        seen, done, returns = [], [], []
        for episode in found.iterate_episodes():
            keep = ~np.asarray(episode.infos["intervened"])[:-1]
            seen.append(np.asarray(episode.observations)[:-1][keep])
            done.append(np.asarray(episode.actions)[keep])
            returns.append(float(np.sum(episode.rewards)))
    return np.concatenate(seen), np.concatenate(done), returns


def initial(key: jax.Array, sizes: list[int]) -> Params:
    """Weights and biases of a network of these layer sizes (He et al. 2015)."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [(jax.random.normal(k, (m, n)) * jnp.sqrt(2.0 / m), jnp.zeros(n))
            for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=True)]  # fmt: skip


def act(params: Params, x: jax.Array) -> jax.Array:
    """Actions (..., nu) in [-1, 1] for normalised observations (..., d)."""
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = params[-1]
    return jnp.tanh(x @ weight + bias)


def loss(params: Params, x: jax.Array, u: jax.Array) -> jax.Array:
    """Mean squared error of the actions."""
    return jnp.mean((act(params, x) - u) ** 2)


@partial(jax.jit, static_argnames=("batch", "rate"))
def epoch(params: Any, moments: Any, key: jax.Array, x: jax.Array, u: jax.Array, step: jax.Array, batch: int,
          rate: float) -> Any:  # fmt: skip
    """One pass over the data in random order."""
    order = jax.random.permutation(key, len(x))[: len(x) // batch * batch].reshape(-1, batch)

    def update(carry: Any, rows: jax.Array) -> Any:
        params, (first, second), step = carry
        slope = jax.grad(loss)(params, x[rows], u[rows])
        step = step + 1
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, slope)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, slope)
        scale = rate * jnp.sqrt(1 - BETA2**step) / (1 - BETA1**step)
        params = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + TINY), params, first, second)
        return (params, (first, second), step), None

    carry, _ = jax.lax.scan(update, (params, moments, step), order)
    return carry


def fit(x: np.ndarray, u: np.ndarray, epochs: int, batch: int, rate: float, seed: int) -> Params:
    """The network after `epochs` passes."""
    key = jax.random.key(seed)
    params = initial(key, [x.shape[1], WIDTH, WIDTH, u.shape[1]])
    zeros = jax.tree.map(jnp.zeros_like, params)
    moments, step = (zeros, zeros), jnp.zeros(())
    for _ in range(epochs):
        key, part = jax.random.split(key)
        params, moments, step = epoch(params, moments, part, jnp.asarray(x), jnp.asarray(u), step, batch, rate)
    return params


def drive(
    params: Params, environment: str, mean: np.ndarray, scale: np.ndarray, seeds: range, steps: int
) -> list[float]:
    """Returns of the network in Gymnasium's environment, one episode per seed."""
    env = gymnasium.make(environment)
    decide = jax.jit(act)
    returns = []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total = 0.0
        for _ in range(steps):
            x = (observation[: len(mean)] - mean) / scale
            observation, reward, terminated, truncated, _ = env.step(np.asarray(decide(params, x), np.float64))
            total += float(reward)
            if terminated or truncated:
                break
        returns.append(total)
    env.close()
    return returns


def main(
    name: Annotated[str, typer.Argument(help="Datasets by their common name, such as surefoot/half_cheetah.")],
    data: Annotated[Path, typer.Option(help="Where `surefoot export` put them.")] = Path("runs/datasets"),
    environment: Annotated[str, typer.Option(help="Gymnasium environment to drive.")] = "HalfCheetah-v5",
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch: Annotated[int, typer.Option(min=1)] = 256,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    episodes: Annotated[int, typer.Option(min=1, help="To drive; their seeds are new ones.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Per episode.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Fit a network to what programs did, and let it drive; prints one JSON object."""
    x, u, shown = load(name, "train", data)
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    params = fit((x - mean) / scale, u, epochs, min(batch, len(x)), rate, seed)
    new_x, new_u, _ = load(name, "test", data)
    errors = [float(loss(params, jnp.asarray((a - mean) / scale), jnp.asarray(b))) for a, b in ((x, u), (new_x, new_u))]
    returns = drive(params, environment, mean, scale, range(10_000, 10_000 + episodes), steps)
    outcome = {
        "steps": len(x), "train_mse": errors[0], "test_mse": errors[1], "variance": float(new_u.var(axis=0).mean()),
        "demonstrated": float(np.mean(shown)), "returns": returns, "mean": float(np.mean(returns)),
    }  # fmt: skip
    typer.echo(json.dumps(outcome, indent=2))


if __name__ == "__main__":
    typer.run(main)
