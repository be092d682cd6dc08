"""The iteration of mairl's preset ``default`` for continuous actions, in PyTorch.

Same networks, losses, batches, random draws and optimizers as ``mairl.algorithms.mairl``; what is
random comes from an object like :class:`Draws`, so that mairl's own draws can be fed in. Written
to be fast in either mode: ensembles are batched products, a transition is one row of a table (one
gather), lists of parameters go through the ``foreach`` functions and the fused Adam. Every
iteration is free of Python branches on values, so ``torch.compile`` makes one graph of it.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.optim.adam import adam

# Without it torch.compile would break its graph at every gradient.
torch._dynamo.config.trace_autograd_ops = True

HIDDEN, MODEL_HIDDEN = (128, 128), (256, 256)
MODELS, CRITICS, VALUE_STEPS = 4, 2, 2
RATES = {
    "dynamics": 1e-3,
    "reward": 1e-4,
    "value": 3e-4,
    "policy": 1e-4,
    "log_temperature": 3e-4,
}
GAMMA, TAU, TEMPERATURE, TARGET_ENTROPY = 0.99, 0.005, 0.1, -2.0
PENALTY, BOUND, SOFTPLUS, CLONING, IMAGINED = 0.5, 5.0, 2.5, 0.5, 0.5
LOG_STD_MIN, LOG_STD_MAX = -5.0, 1.0
KINDS = ("expert", "replay")


@dataclass(frozen=True)
class Sizes:
    """What may differ from Hopper-v5 under the preset; ``batch`` a multiple of 8."""

    obs: int = 11
    action: int = 3
    horizon: int = 3
    batch: int = 64


class Rollout(NamedTuple):
    """Steps of a batch, time first; of ``obs`` and ``alive`` one more, x is obs and action."""

    obs: torch.Tensor
    alive: torch.Tensor
    x: torch.Tensor
    entropy: torch.Tensor
    terminated: torch.Tensor


class Draws:
    """Fresh random numbers."""

    def rows(self, count, among):
        return torch.randint(among, (count,))

    def normal(self, *shape):
        return torch.randn(shape)

    def uniform(self, count):
        return torch.rand(count)

    def permutation(self, count):
        return torch.randperm(count)


def initial(sizes):
    """Fresh parameters by part: weights [in, out] and biases in turn, members of ensembles first.

    Deviations are those of mairl's hidden layers; how long an iteration takes does not hang on it.
    """
    both = sizes.obs + sizes.action
    return {
        "dynamics": _layers(both, sizes.obs + 1, MODELS, hidden=MODEL_HIDDEN),
        "reward": _layers(both, 1),
        "value": _layers(both, 1, CRITICS),
        "policy": _layers(sizes.obs, 2 * sizes.action),
        "log_temperature": [torch.tensor(math.log(TEMPERATURE))],
    }


def _layers(inputs, outputs, *members, hidden=HIDDEN):
    widths = (inputs, *hidden, outputs)
    arrays = []
    for m, n in pairwise(widths):
        arrays += [torch.randn(*members, m, n) / math.sqrt(3 * m), torch.zeros(*members, n)]
    return arrays


def mlp(arrays, x, activation, norm=False):
    """A network on rows [batch, n]; an ensemble has rows for each of its members in front."""
    *hidden, last = zip(arrays[::2], arrays[1::2], strict=True)
    for layer in hidden:
        x = linear(*layer, x)
        x = activation(F.layer_norm(x, x.shape[-1:]) if norm else x)
    return linear(*last, x)


def linear(weight, bias, x):
    if weight.dim() == 3:
        return torch.baddbmm(bias[:, None], x, weight)
    return torch.addmm(bias, x, weight)


def bounded(logit):
    """What the policy sees of f."""
    return SOFTPLUS * F.softplus(BOUND * torch.tanh(logit / BOUND) / SOFTPLUS)


def length(tensors):
    """The norm of all of them together."""
    return torch.nn.utils.get_total_norm(tensors)


def fresh_moments(arrays):
    """Adam's state: both moments, and the number of steps that each array has seen."""
    first, second = ([torch.zeros_like(a) for a in arrays] for _ in range(2))
    return first, second, [torch.zeros(()) for _ in arrays]


class Learner:
    """Parameters, targets, optimizers and data; :meth:`iterate` takes the four steps.

    ``data`` holds arrays: ``expert`` and ``replay``, tables with a row [obs, action, next_obs,
    terminated] for each transition; ``mean`` and ``std`` of such a row (0 and 1 where it is not
    normalized); ``delta_scale``; and the log-ratios ``live`` and ``ended``.
    """

    def __init__(self, sizes, data, parameters=None):
        self.sizes, self.half = sizes, sizes.batch // 2
        self.data = {name: torch.as_tensor(array) for name, array in data.items()}
        parameters = parameters or initial(sizes)
        self.params = {
            part: [torch.as_tensor(a).clone().requires_grad_() for a in arrays]
            for part, arrays in parameters.items()
        }
        self.target = [p.detach().clone() for p in self.params["value"]]
        demonstrated, replayed = (len(self.data[kind]) for kind in KINDS)
        self.share = min(0.5, demonstrated / (demonstrated + replayed))
        self.moments = {part: fresh_moments(arrays) for part, arrays in self.params.items()}
        steps = torch.arange(sizes.horizon + 1)[:, None]
        self.discount, self.left = GAMMA**steps, sizes.horizon - steps[:-1]
        self.target_entropy = TARGET_ENTROPY * sizes.action
        self.penalty = PENALTY * min(1.0, (sizes.obs + sizes.action) / 16)

    def iterate(self, draws):
        """One iteration; returns the numbers that the check compares."""
        metrics = self.dynamics(draws) | self.reward(draws)
        steps = [self.value(draws) for _ in range(VALUE_STEPS)]
        metrics |= {name: sum(step[name] for step in steps) / VALUE_STEPS for name in steps[0]}
        return metrics | self.policy(draws)

    def dynamics(self, draws):
        """Each model fits its own draw of all transitions, demonstrated ones by their share."""
        count = MODELS * self.sizes.batch
        demonstrated = draws.uniform(count)[:, None] < self.share
        rows = torch.where(demonstrated, *[self.sample(draws, kind, count) for kind in KINDS])
        rows = rows.view(MODELS, -1, rows.shape[-1])
        obs, x, next_obs, terminated = self.fields(rows)
        out = mlp(self.params["dynamics"], x, F.silu)
        delta, logit = out[..., :-1], out[..., -1]
        error = (next_obs - obs) / self.data["delta_scale"] - delta
        squared = error.square().mean((1, 2))
        ends = (F.softplus(logit) - terminated * logit).mean(1)
        norm = self.descend("dynamics", (squared + ends).sum())
        return {
            "dynamics/squared_error": squared.detach().mean(),
            "dynamics/termination_loss": ends.detach().mean(),
            "dynamics/gradient_norm": norm,
        }

    def reward(self, draws):
        """Demonstrations against replayed transitions and the policy's imagined ones."""
        expert = self.fields(self.sample(draws, "expert", self.half))[1]
        replayed = self.fields(self.sample(draws, "replay", self.half))[1]
        with torch.no_grad():
            starts = self.deal(self.fields(self.mixed(draws))[0][::2])
            made = self.imagine(draws, starts, 1)
        negative = torch.cat([replayed, made.x[0]])
        share = torch.full((self.half,), 1.0 - IMAGINED), IMAGINED * made.alive[0]
        weight = torch.cat(share)
        weight = weight / weight.sum()
        logits = self.f(torch.cat([expert, negative]))
        loss = F.softplus(-logits[: self.half]).mean()
        loss = loss + (weight * F.softplus(logits[self.half :])).sum()
        other = negative[draws.permutation(len(negative))[: self.half]]
        penalty = self.slope(expert, other, draws.uniform(self.half)[:, None])
        norm = self.descend("reward", loss + self.penalty * penalty)
        return {
            "reward/loss": loss.detach(),
            "reward/gradient_penalty": penalty.detach(),
            "reward/gradient_norm": norm,
        }

    def slope(self, expert, negative, mix):
        """Mean squared slope of f between the two: differentiated once more by what follows."""
        points = (mix * expert + (1.0 - mix) * negative).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.f(points).sum(), points, create_graph=True)
        return (slope.square().sum(-1) + 1e-8).mean()

    def value(self, draws):
        """Temporal difference of the bounded reward, then the targets follow."""
        _, x, next_obs, terminated = self.fields(self.mixed(draws))
        with torch.no_grad():
            rewards, end_values = self.rewards(x)
            action, entropy = self.act(next_obs, draws)
            future = self.soft_value(next_obs, action, entropy)
            goes_on = 1.0 - terminated
            y = rewards + GAMMA * (goes_on * future + terminated * end_values)
        q = self.critics(self.params["value"], x)
        loss = 0.5 * (q - y).square().sum(0).mean()
        norm = self.descend("value", loss)
        torch._foreach_lerp_(self.target, [p.detach() for p in self.params["value"]], TAU)
        return {
            "value/loss": loss.detach(),
            "value/target": y.mean(),
            "value/gradient_norm": norm,
        }

    def policy(self, draws):
        """Climb the objective through the model while cloning; then move the temperature."""
        starts = self.deal(self.fields(self.mixed(draws))[0])
        clone = self.fields(self.sample(draws, "expert", self.half))
        returns, entropy = self.returns(draws, starts)
        action = torch.tanh(self.distribution(clone[0])[0])
        cloning = (action - clone[1][:, self.sizes.obs :]).square().sum(-1).mean()
        norm = self.descend("policy", -returns, CLONING / (1.0 - GAMMA) * cloning)
        (log_temperature,) = self.params["log_temperature"]
        self.descend("log_temperature", log_temperature.exp() * (entropy - self.target_entropy))
        log_temperature.detach().clamp_(max=math.log(TEMPERATURE))
        return {
            "policy/objective": returns.detach(),
            "policy/entropy": entropy,
            "policy/cloning_loss": cloning.detach(),
            "policy/gradient_norm": norm,
        }

    def returns(self, draws, starts):
        """Mean over horizons 0 ... H of the return through the model, and the mean entropy."""
        horizon = self.sizes.horizon
        made = self.imagine(draws, starts, horizon)
        rewards, end_values = (r.view(horizon, -1) for r in self.rewards(made.x.flatten(0, 1)))
        extra = self.temperature() * (made.entropy - self.target_entropy)
        steps = rewards + extra + GAMMA * made.terminated * end_values
        obs = made.obs.flatten(0, 1)
        action, entropy = self.act(obs, draws)
        values = self.soft_value(obs, action, entropy).view(horizon + 1, -1)
        weight = self.discount * made.alive
        total = (self.left * weight[:-1] * steps).sum(0) + (weight * values).sum(0)
        return total.mean() / (horizon + 1), entropy.detach().mean()

    def descend(self, part, loss, aside=None):
        """One Adam step; the gradient of ``aside`` is cut to the length of the loss's."""
        arrays, (first, second, steps) = self.params[part], self.moments[part]
        gradient = torch.autograd.grad(loss, arrays)
        compiling = torch.compiler.is_compiling()  # Of the fused Adam no graph is made.
        with torch.no_grad():
            if aside is not None:
                other = torch.autograd.grad(aside, arrays)
                longer = length(other) / length(gradient).clamp(min=1e-12)
                cut = 1.0 / longer.clamp(min=1.0)
                gradient = torch._foreach_add(gradient, torch._foreach_mul(other, cut))
            norm = length(gradient)
            if part != "value":
                gradient = torch._foreach_mul(gradient, 10.0 / norm.clamp(min=10.0))
            adam(
                *(arrays, list(gradient), first, second, [], steps),
                fused=not compiling,
                foreach=compiling,
                capturable=compiling,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=RATES[part],
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
        return norm

    def imagine(self, draws, obs, horizon):
        """Roll the policy through the model, a part of the batch in each of its members."""
        seen, alive, steps = [obs], [torch.ones(len(obs))], []
        for _ in range(horizon):
            action, entropy = self.act(obs, draws)
            x = torch.cat([obs, action], -1)
            out = mlp(self.params["dynamics"], x.view(MODELS, -1, x.shape[-1]), F.silu)
            out = out.view(len(x), -1)
            obs = obs + self.data["delta_scale"] * out[:, :-1]
            terminated = torch.sigmoid(out[:, -1])
            seen.append(obs)
            alive.append(alive[-1] * (1.0 - terminated))
            steps.append((x, entropy, terminated))
        x, entropy, terminated = map(torch.stack, zip(*steps, strict=True))
        return Rollout(torch.stack(seen), torch.stack(alive), x, entropy, terminated)

    def act(self, obs, draws):
        """A sampled action, and minus its log-density."""
        mean, log_std = self.distribution(obs)
        noise = draws.normal(*mean.shape)
        pre = mean + log_std.exp() * noise
        slope = 2.0 * (math.log(2.0) - pre - F.softplus(-2.0 * pre))
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi) - slope
        return torch.tanh(pre), -log_prob.sum(-1)

    def distribution(self, obs):
        mean, raw = mlp(self.params["policy"], obs, F.relu).chunk(2, -1)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(raw) + 1.0)

    def f(self, x):
        return mlp(self.params["reward"], x, torch.tanh)[:, 0]

    def rewards(self, x):
        """The bounded reward of steps, and what an end by them is worth."""
        f = self.f(x)
        after = bounded((self.data["ended"] + f).clamp(-BOUND, BOUND))
        return bounded(f + self.data["live"]), after / (1.0 - GAMMA)

    def critics(self, arrays, x):
        return mlp(arrays, x.expand(CRITICS, *x.shape), F.relu, norm=True)[..., 0]

    def soft_value(self, obs, action, entropy):
        """The target critics' lower value, entropy counted."""
        lower = self.critics(self.target, torch.cat([obs, action], -1)).amin(0)
        return lower + self.temperature() * (entropy - self.target_entropy)

    def temperature(self):
        return self.params["log_temperature"][0].detach().exp()

    def mixed(self, draws):
        """Half a batch of demonstrations, then half a batch of replay."""
        return torch.cat([self.sample(draws, kind, self.half) for kind in KINDS])

    def sample(self, draws, kind, count):
        table = self.data[kind]
        return table[draws.rows(count, len(table))]

    def deal(self, obs):
        """Reorder rows so that every model gets as many demonstrated as replayed ones."""
        return obs.view(-1, MODELS, obs.shape[-1]).swapaxes(0, 1).reshape(obs.shape)

    def fields(self, rows):
        """Of rows of a table, normalized: obs, obs and action, next_obs, terminated."""
        rows = ((rows - self.data["mean"]) / self.data["std"]).clamp(-10.0, 10.0)
        obs, both = self.sizes.obs, self.sizes.obs + self.sizes.action
        return rows[..., :obs], rows[..., :both], rows[..., both:-1], rows[..., -1]
