"""What a run hands on: its policy, reward and model, each complete in itself.

The JSON beside the arrays says all that a reader in any language needs: sizes and bounds,
normalization, equations, and where it comes from (demonstrations and their hash, settings,
versions).
"""

from dataclasses import asdict
from typing import Any

from mairl.checkpoint import save_artifact
from mairl.job import Job
from mairl.normalizer import CLIP
from mairl.portable import EQUATIONS, RewardForm
from mairl.rewards import end_logits


def hand_on(job: Job, state: Any, env_steps: int) -> None:
    """Write what there is of policy, model and reward as they are at ``env_steps``.

    ``state`` is the algorithm's (``algorithms.Algorithm``). Of the reward, a snapshot is kept.

    Raises:
        MairlError: they cannot be written.
    """
    directory, params, normalizer = job.directory, state.params, state.normalizer
    meta = {**_origin(job), "env_steps": env_steps, "clip": CLIP}
    save_artifact(directory.policy, {"policy": params.policy, "normalizer": normalizer}, meta)
    if hasattr(params, "dynamics"):
        dynamics = {"dynamics": params.dynamics, "delta_scale": state.delta_scale}
        save_artifact(directory.dynamics, {**dynamics, "normalizer": normalizer}, meta)
    if hasattr(params, "reward"):
        reward = {"reward": params.reward, "normalizer": normalizer}
        form = _form(state, getattr(job.config.algo, "reward", None))
        about = {**meta, "reward": asdict(form), "equations": EQUATIONS}
        for path in (directory.reward, directory.snapshots / f"reward-{env_steps:08d}"):
            save_artifact(path, reward, about)


def _origin(job: Job) -> dict[str, Any]:
    """What was learned from what, and how."""
    return {
        "spec": asdict(job.spec),
        "algorithm": job.config.algorithm,
        "config": asdict(job.config.algo),
        "seed": job.config.seed,
        "demonstrations": {
            **job.document["demos"],
            "episodes": job.expert.episodes,
            "every": job.expert.every,
            "transitions": len(job.expert.transition.obs),
        },
        "packages": job.document["versions"],
    }


def _form(state: Any, settings: Any) -> RewardForm:
    """``settings`` are those of the reward; none where it is not bounded for the policy."""
    reward = state.params.reward
    bound, softplus, live, ended = None, 0.0, 0.0, 0.0
    if settings is not None:
        bound, softplus = settings.bound, settings.softplus
        shares = state.expert_ended, state.policy_ended, state.end_level
        ended, live = map(float, end_logits(*shares, bound))
    return RewardForm(
        gamma=reward.gamma,
        state_only=reward.state_only,
        clip=CLIP,
        bound=bound,
        softplus=softplus,
        live=live,
        ended=ended,
    )
