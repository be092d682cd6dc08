"""What a run hands on: its policy and its reward, each complete in itself.

The JSON beside the arrays says all that a reader in any language needs: sizes and bounds,
normalization, equations, and where it comes from (demonstrations and their hash, settings,
versions).
"""

from dataclasses import asdict
from typing import Any

from mairl.algorithms.config import RewardConfig
from mairl.algorithms.mairl import State
from mairl.checkpoint import save_artifact
from mairl.job import Job
from mairl.normalizer import CLIP
from mairl.portable import EQUATIONS, RewardForm
from mairl.rewards import AIRLReward, end_logits


def hand_on(job: Job, state: State, env_steps: int) -> None:
    """Write policy, reward, and a snapshot of the reward, as they are at ``env_steps``.

    Raises:
        MairlError: they cannot be written.
    """
    directory, normalizer = job.directory, state.normalizer
    meta = {**_origin(job), "env_steps": env_steps}
    policy = {"policy": state.params.policy, "normalizer": normalizer}
    save_artifact(directory.policy, policy, {**meta, "clip": CLIP})
    reward = {"reward": state.params.reward, "normalizer": normalizer}
    form = _form(state, state.params.reward, job.config.algo.reward)
    meta = {**meta, "reward": asdict(form), "equations": EQUATIONS}
    for path in (directory.reward, directory.snapshots / f"reward-{env_steps:08d}"):
        save_artifact(path, reward, meta)


def _origin(job: Job) -> dict[str, Any]:
    """What was learned from what, and how."""
    return {
        "spec": asdict(job.spec),
        "algorithm": "mairl",
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


def _form(state: State, reward: AIRLReward, config: RewardConfig) -> RewardForm:
    ended, live = end_logits(state.expert_ended, state.policy_ended, config.bound)
    return RewardForm(
        gamma=reward.gamma,
        state_only=reward.state_only,
        clip=CLIP,
        bound=config.bound,
        positive=config.positive,
        live=float(live),
        ended=float(ended),
    )
