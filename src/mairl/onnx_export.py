"""Policy and reward as ONNX graphs, in the environment's own units. Needs ``mairl[onnx]``.

Normalization and the scaling of actions are in the graph: what runs it needs nothing of us.

``policy.onnx``  obs ``[n, obs]`` -> action ``[n, action]``, or int64 ``[n]`` if discrete: the
deterministic one. ``reward.onnx``  obs, action, next_obs ``[n, obs]``, terminated ``[n]`` ->
g, h, f, each ``[n]``. All others are float32.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mairl.artifact import load_artifact
from mairl.portable import (
    EQUATIONS,
    Layers,
    LearnedReward,
    as_spec,
    check_layers,
    check_scale,
    layers,
    policy_alone,
)
from mairl.types import EnvSpec, MairlError

try:
    import onnx  # pyright: ignore[reportMissingImports]
    from onnx import TensorProto, helper, numpy_helper  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MairlError("exporting needs onnx: pip install 'mairl[onnx]'") from error

OPSET, IR_VERSION = 17, 8
"""Old enough for runtimes of 2022 on."""


def export(run: str | Path, out: str | Path) -> list[Path]:
    """Write ``policy.onnx`` and, if one was learned, ``reward.onnx`` of a run into ``out``.

    Raises:
        MairlError: the run has none, they are damaged, or ``out`` cannot be written.
    """
    run, out = Path(run), Path(out)
    if not run.is_dir():
        raise MairlError(f"there is no run directory {run}; check the path")
    reward = None if policy_alone(run) else LearnedReward.load(run)
    graphs = {"policy": _policy(run / "policy")}
    if reward is not None:
        graphs["reward"] = _reward(reward, run / "reward")
    paths = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, graph in graphs.items():
            onnx.checker.check_model(graph, full_check=True)
            paths.append(out / f"{name}.onnx")
            paths[-1].write_bytes(graph.SerializeToString())
    except OSError as error:
        raise MairlError(f"{out} cannot be written: {error}; choose another folder") from error
    return paths


def _policy(path: Path) -> Any:
    arrays, meta = load_artifact(path)
    try:
        spec, clip = as_spec(meta["spec"]), float(meta["clip"])
        check_scale(arrays, spec)
        net = layers(arrays, "policy.net")
        # A deviation that is the same everywhere is no output of the network: PPO's policy, whose
        # mean is clipped. Else the deviations are its second half, and the mean is squashed.
        clipped = "policy.log_std" in arrays
        outputs = spec.action_size if spec.discrete or clipped else 2 * spec.action_size
        check_layers(net, "policy.net", spec.obs_size, outputs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MairlError(
            f"{path} is not a policy that this mairl exports ({error}); export it with mairl "
            f"{meta['versions'].get('mairl')}, or hand it on again by evaluating its run"
        ) from error
    graph = _Graph(arrays, clip)
    x = graph.normalized("obs")
    if spec.discrete:
        choice = graph.op("ArgMax", graph.network(net, x, "Relu"), axis=1, keepdims=0)
        graph.op("Add", choice, graph.constant(spec.discrete_start, np.int64), out="action")
        action = helper.make_tensor_value_info("action", TensorProto.INT64, ["n"])
    else:
        weight, bias = net[-1]
        mean = [*net[:-1], (weight[:, : spec.action_size], bias[: spec.action_size])]
        if clipped:
            limits = graph.constant(-1.0), graph.constant(1.0)
            inside = graph.op("Clip", graph.network(mean, x, "Tanh"), *limits)
        else:
            inside = graph.op("Tanh", graph.network(mean, x, "Relu"))
        low, high = (np.asarray(b, np.float64) for b in (spec.action_low, spec.action_high))
        scaled = graph.op("Mul", inside, graph.constant((high - low) / 2.0))
        scaled = graph.op("Add", scaled, graph.constant((high + low) / 2.0))
        # Against the last digit's rounding.
        scaled = graph.op("Max", scaled, graph.constant(low))
        graph.op("Min", scaled, graph.constant(high), out="action")
        action = _floats("action", "n", spec.action_size)
    return graph.model("policy", [_floats("obs", "n", spec.obs_size)], [action], meta)


def _reward(reward: LearnedReward, path: Path) -> Any:
    arrays, meta = load_artifact(path)
    spec, form = reward.spec, reward.form
    graph = _Graph(arrays, form.clip)
    x = graph.normalized("obs")
    inputs = x if form.state_only else graph.op("Concat", x, _inside(graph, spec), axis=1)
    flat = graph.constant([-1], np.int64)

    def number(name: str, x: str, out: str) -> str:
        return graph.op("Reshape", graph.network(layers(arrays, name), x, "Tanh"), flat, out=out)

    g = number("reward.reward", inputs, "g")
    if layers(arrays, "reward.potential"):
        h = number("reward.potential", x, "h")
        next_h = number("reward.potential", graph.normalized("next_obs"), "next_h")
        alive = graph.op("Sub", graph.constant(1.0), "terminated")
        future = graph.op("Mul", graph.op("Mul", alive, graph.constant(form.gamma)), next_h)
        graph.op("Sub", graph.op("Add", g, future), h, out="f")
    else:
        graph.op("Identity", g, out="f")
        graph.op("Sub", g, g, out="h")
    action = (
        helper.make_tensor_value_info("action", TensorProto.INT64, ["n"])
        if spec.discrete
        else _floats("action", "n", spec.action_size)
    )
    ins = [
        _floats("obs", "n", spec.obs_size),
        action,
        _floats("next_obs", "n", spec.obs_size),
        _floats("terminated", "n"),
    ]
    return graph.model("reward", ins, [_floats(name, "n") for name in "ghf"], meta)


def _inside(graph: "_Graph", spec: EnvSpec) -> str:
    """Inside actions of the input ``action``."""
    if spec.discrete:
        choice = graph.op("Sub", "action", graph.constant(spec.discrete_start, np.int64))
        depth, values = graph.constant(spec.action_size, np.int64), graph.constant([0.0, 1.0])
        return graph.op("OneHot", choice, depth, values)
    low, high = (np.asarray(b, np.float64) for b in (spec.action_low, spec.action_high))
    scaled = graph.op("Sub", "action", graph.constant((high + low) / 2.0))
    scaled = graph.op("Div", scaled, graph.constant((high - low) / 2.0))
    return graph.op("Clip", scaled, graph.constant(-1.0), graph.constant(1.0))


class _Graph:
    """A graph in the making; operations go by the names of their results."""

    def __init__(self, arrays: dict[str, np.ndarray], clip: float):
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._mean, self._std = arrays["normalizer.mean"], arrays["normalizer.std"]
        self._clip = clip

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant_{len(self._initializers)}"
        array = np.ascontiguousarray(np.asarray(value, kind))
        self._initializers.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def normalized(self, name: str) -> str:
        centred = self.op("Sub", name, self.constant(self._mean))
        scaled = self.op("Div", centred, self.constant(self._std))
        return self.op("Clip", scaled, self.constant(-self._clip), self.constant(self._clip))

    def network(self, net: Layers, x: str, activation: str) -> str:
        for i, (weight, bias) in enumerate(net):
            x = self.op("Gemm", x, self.constant(weight), self.constant(bias))
            x = x if i == len(net) - 1 else self.op(activation, x)
        return x

    def model(self, name: str, inputs: list[Any], outputs: list[Any], meta: dict[str, Any]) -> Any:
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._initializers)
        model = helper.make_model(
            graph,
            producer_name="mairl",
            producer_version=str(meta["versions"].get("mairl")),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            doc_string=json.dumps(EQUATIONS) if name == "reward" else "",
        )
        about = ("spec", "demonstrations", "env_steps", "seed")
        helper.set_model_props(model, {k: json.dumps(meta[k]) for k in about if k in meta})
        return model


def _floats(name: str, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
