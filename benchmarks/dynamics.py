# pyright: reportArgumentType=false, reportOptionalSubscript=false, reportOptionalMemberAccess=false
"""Compare dynamics models on the same transitions: accuracy, parameters, FLOPs and time.

    python benchmarks/dynamics.py DEMOS [--envs Hopper-v5 HalfCheetah-v5] [--rows NAME ...]
        [--seeds 3] [--updates 2000] [--out benchmarks/results/dynamics.json]

DEMOS holds one ``TASK.npz`` per task. The data are 8000 transitions (2000 more held out, from
other demonstrations and other seeds): an expert's actions replayed from its seed up to a random
time, then with noise of standard deviation 0, .1, .3 or .6; and a quarter of random actions. All
models see batches of 256 predictions: single transitions for models without memory, 16
sequences of 16 steps for those with. Each row uses the better of two learning rates (one-step
error of its first seed, held-out data). RMSE is in units of the observations' standard deviation
over the training data, on held-out episodes; the 10-step one is open loop, after 8 real steps
that only models with memory can use. "Mean of seeds" rolls out with the seeds' mean prediction,
as an ensemble would. Time is the least CPU time of one update on one core.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mairl.dynamics import (
    Dynamics,
    GRUDynamics,
    MarkovDynamics,
    MLPDynamics,
    ReleasedDynamics,
    TokenAttentionDynamics,
    WindowDynamics,
    mean,
)

BATCH, SEQUENCE, CONTEXT, HORIZON, SEGMENT = 256, 16, 8, 10, 80
RATES = (3e-3, 1e-2)


def _mlp(*hidden: int) -> Callable[..., Dynamics]:
    return lambda o, a, key: MLPDynamics(o, a, hidden, key=key)


def _tokens(tokenizer: str, num: int, width: int, layers: int, **more) -> Callable[..., Dynamics]:
    return lambda o, a, key: TokenAttentionDynamics(
        *(o, a), num_tokens=num, width=width, layers=layers, tokenizer=tokenizer, key=key, **more
    )


ROWS: dict[str, Callable[..., Dynamics]] = {
    "mlp 3x90": _mlp(90, 90, 90),
    "mlp 3x200": _mlp(200, 200, 200),
    "tokens 4x32 L1": _tokens("soft", 4, 32, 1),
    "tokens 4x32 L2": _tokens("soft", 4, 32, 2),
    "tokens 2x64 L1": _tokens("soft", 2, 64, 1),
    "tokens 4x64 L1": _tokens("soft", 4, 64, 1),
    "one token 1x64 L2": _tokens("soft", 1, 64, 2),  # attention over itself: a residual MLP
    "grouped 4x32 L2": _tokens("grouped", 4, 32, 2),
    "dimension x32 L2": _tokens("dimension", 0, 32, 2),
    "released 48": lambda o, a, key: ReleasedDynamics(o, a, 48, 3, key=key),
    "window 32 L2": lambda o, a, key: WindowDynamics(o, a, width=32, layers=2, key=key),
    "gru 48": lambda o, a, key: GRUDynamics(o, a, 48, 1, key=key),
}


# -- data ---------------------------------------------------------------------------------------


def collect(env_id: str, demos: Path, steps: int, episodes: range, seed: int) -> list[dict]:
    """Segments of at least CONTEXT + HORIZON steps: obs [T+1, n], action [T, m], terminated."""
    rng, env = np.random.default_rng(seed), gym.make(env_id)
    with np.load(demos / f"{env_id}.npz", allow_pickle=False) as full:
        lengths, actions, seeds = full["episode_lengths"], full["actions"], full["seeds"]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    segments, total = [], 0
    while total < steps:
        episode = int(rng.choice(episodes))
        expert = actions[starts[episode] : starts[episode + 1]]
        noise, is_random = rng.choice([0.0, 0.1, 0.3, 0.6]), rng.random() < 0.25
        begin = 0 if is_random else int(rng.integers(0, min(len(expert) - SEGMENT, 300)))
        reset_seed = int(rng.integers(1 << 30)) if is_random else int(seeds[episode])
        obs, terminated = env.reset(seed=reset_seed)[0], False
        kept_obs, kept_action = [obs], []
        for t in range(begin + SEGMENT):
            action = expert[t] + (t >= begin) * noise * rng.normal(size=expert.shape[1])
            if is_random:
                action = rng.uniform(-1, 1, size=expert.shape[1])
            action = np.clip(action, -1, 1).astype(np.float32)
            obs, _, terminated, truncated, _ = env.step(action)
            if t >= begin:
                kept_action.append(action)
            else:
                kept_obs.clear()
            kept_obs.append(obs)
            if terminated or truncated:
                break
        if len(kept_action) >= CONTEXT + HORIZON:
            segments.append(
                {
                    "obs": np.float32(kept_obs),
                    "action": np.float32(kept_action),
                    "terminated": np.float32([0] * (len(kept_action) - 1) + [terminated]),
                }
            )
            total += len(kept_action)
    return segments


def windows(segments: list[dict], length: int) -> dict[str, np.ndarray]:
    """All windows of ``length`` consecutive steps, time first: obs [length + 1, N, n], ..."""
    cut = {"obs": length + 1, "action": length, "terminated": length}
    return {
        name: np.stack(
            [s[name][i : i + size] for s in segments for i in range(len(s["action"]) - length + 1)],
            axis=1,
        )
        for name, size in cut.items()
    }


def prepare(env_id: str, demos: Path) -> dict:
    train = collect(env_id, demos, 8000, range(0, 18), seed=1)
    test = collect(env_id, demos, 2000, range(18, 25), seed=2)
    everything = np.concatenate([s["obs"] for s in train])
    mean, std = everything.mean(0), everything.std(0) + 1e-6
    for s in train + test:
        s["obs"] = np.clip((s["obs"] - mean) / std, -10, 10)
    scale = np.concatenate([np.diff(s["obs"], axis=0) for s in train]).std(0) + 1e-6
    return {
        "single": windows(train, 1),
        "sequence": windows(train, SEQUENCE),
        "test": windows(test, CONTEXT + HORIZON),
        "scale": scale,
        "sizes": (everything.shape[1], train[0]["action"].shape[1]),
    }


# -- learning and measuring ---------------------------------------------------------------------


def roll(model: Dynamics, obs: jax.Array, action: jax.Array):
    """Predictions along real steps, time first."""
    return jax.lax.scan(
        lambda c, x: model.step(c, *x), model.initial(obs.shape[1:-1]), (obs, action)
    )[1]


def make_update(optimizer, data: dict, scale: jax.Array) -> Callable:
    """(model, optimizer state), key -> the same after one update on 256 predictions."""
    length, num = data["action"].shape[:2]

    def loss(model, batch):
        target = (batch["obs"][1:] - batch["obs"][:-1]) / scale
        if length == 1:
            delta, logit = jax.tree.map(
                lambda x: x[None], model(batch["obs"][0], batch["action"][0])
            )
        else:
            delta, logit = roll(model, batch["obs"][:-1], batch["action"])
        ends = jnp.mean(optax.sigmoid_binary_cross_entropy(logit, batch["terminated"]))
        return jnp.mean((delta - target) ** 2) + 0.1 * ends

    def update(carry, key):
        model, state = carry
        rows = jax.random.randint(key, (BATCH // length,), 0, num)
        gradient = jax.grad(loss)(model, {k: v[:, rows] for k, v in data.items()})
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(model, updates), state), None

    return update


def evaluate(model: Dynamics, test: dict, scale: jax.Array) -> dict[str, jax.Array]:
    real, action = test["obs"], test["action"]
    one = roll(model, real[:-1], action)
    one_error = one.delta[CONTEXT:] * scale - (real[1:] - real[:-1])[CONTEXT:]

    def step(carry, x):
        memory, imagined = carry
        time, now, act = x
        obs = jnp.where(time <= CONTEXT, now, imagined)
        memory, prediction = model.step(memory, obs, act)
        imagined = jnp.clip(obs + prediction.delta * scale, -10, 10)
        return (memory, imagined), imagined

    start = model.initial(real.shape[1:-1]), real[0]
    times = jnp.arange(CONTEXT + HORIZON)
    imagined = jax.lax.scan(step, start, (times, real[:-1], action))[1]
    ends = optax.sigmoid_binary_cross_entropy(one.terminated_logit, test["terminated"])
    return {
        "one_step_rmse": jnp.sqrt(jnp.mean(one_error**2)),
        "ten_step_rmse": jnp.sqrt(jnp.mean((imagined[-1] - real[-1]) ** 2)),
        "end_log_loss": jnp.mean(ends[CONTEXT:]),
    }


class MeanOf(Dynamics):
    """Several trained models that predict their mean."""

    models: Dynamics
    num: int = eqx.field(static=True)

    def initial(self, batch_shape=()):
        one = jax.tree.map(lambda x: x[0], self.models).initial(batch_shape)
        return jax.tree.map(lambda x: jnp.stack([x] * self.num), one)

    def step(self, carry, obs, action):
        carry, each = jax.vmap(lambda m, c: m.step(c, obs, action))(self.models, carry)
        return carry, mean(each)


def measure(name: str, data: dict, seeds: int, updates: int) -> dict:
    obs_size, action_size = data["sizes"]
    scale = jnp.asarray(data["scale"])
    test = jax.tree.map(jnp.asarray, data["test"])
    judge = jax.jit(evaluate)

    def adam(rate):
        schedule = optax.cosine_decay_schedule(1.0, updates)
        return optax.chain(
            optax.clip_by_global_norm(10.0),
            optax.scale_by_adam(),
            optax.scale_by_schedule(schedule),
            optax.scale(-rate),
        )

    def start(seed):
        model = ROWS[name](obs_size, action_size, key=jax.random.key(seed))
        return model, adam(1.0).init(model)

    first = start(0)
    kind = "single" if isinstance(first[0], MarkovDynamics) else "sequence"
    batches = jax.tree.map(jnp.asarray, data[kind])

    @jax.jit
    def train(carry, keys, rate):
        return jax.lax.scan(make_update(adam(rate), batches, scale), carry, keys)[0]

    def run(seed, rate):
        carry = start(seed)
        for keys in jax.random.split(jax.random.key(1000 + seed), (updates // 100, 100)):
            carry = train(carry, keys, rate)
        return carry[0], jax.tree.map(float, judge(carry[0], test, scale))

    pilots = {rate: run(0, rate) for rate in RATES}
    rate = min(pilots, key=lambda r: pilots[r][1]["one_step_rmse"])
    models, results = zip(pilots[rate], *(run(s, rate) for s in range(1, seeds)), strict=True)
    together = MeanOf(jax.tree.map(lambda *x: jnp.stack(x), *models), seeds)

    keys, spent = jax.random.split(jax.random.key(0), 100), []
    for _ in range(5):  # the least of CPU times: other programs share the machine
        begin = time.process_time()
        jax.block_until_ready(train(first, keys, rate))
        spent.append((time.process_time() - begin) / len(keys))
    call = jax.jit(lambda m, o, a: m(o, a)).lower(
        first[0], jnp.zeros((BATCH, obs_size)), jnp.zeros((BATCH, action_size))
    )
    row = {
        "parameters": sum(x.size for x in jax.tree.leaves(first[0])),
        "flops": round(call.compile().cost_analysis()["flops"] / BATCH),
        "ms_per_update": round(1e3 * min(spent), 3),
        "learning_rate": rate,
        "mean_of_seeds_ten_step_rmse": float(judge(together, test, scale)["ten_step_rmse"]),
        "seeds": seeds,
        "updates": updates,
    }
    for metric in results[0]:
        values = [r[metric] for r in results]
        row[metric] = float(np.mean(values))
        row[f"{metric}_std"] = float(np.std(values))
    return row


def show(name: str, row: dict) -> str:
    return (
        f"| {name} | {row['parameters'] / 1e3:.0f}k | {row['flops'] / 1e3:.0f}k | "
        f"{row['ms_per_update']:.1f} | {row['learning_rate']:g} | "
        f"{row['one_step_rmse']:.4f} ± {row['one_step_rmse_std']:.4f} | "
        f"{row['ten_step_rmse']:.3f} ± {row['ten_step_rmse_std']:.3f} | "
        f"{row['mean_of_seeds_ten_step_rmse']:.3f} | {row['end_log_loss']:.4f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demos", type=Path)
    parser.add_argument("--envs", nargs="+", default=["Hopper-v5", "HalfCheetah-v5"])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dynamics.json"))
    args = parser.parse_args()
    table = json.loads(args.out.read_text()) if args.out.exists() else {}
    for env_id in args.envs:
        data = prepare(env_id, args.demos)
        print(f"\n{env_id}: {data['single']['action'].shape[1]} transitions, {args.seeds} seeds")
        print("| model | parameters | FLOP | ms | rate | 1-step | 10-step | mean of seeds | ends |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in args.rows:
            row = measure(name, data, args.seeds, args.updates)
            table.setdefault(env_id, {})[name] = row
            args.out.write_text(json.dumps(table, indent=1) + "\n")
            print(show(name, row), flush=True)


if __name__ == "__main__":
    main()
