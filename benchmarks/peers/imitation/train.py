"""GAIL and AIRL of the `imitation` library, with the settings its authors publish.

MuJoCo tasks: the tuned values of its benchmark for Hopper (10 million steps there, on episodes
that never terminate). Others: those of the examples in its documentation.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data.types import Transitions
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import (
    BasicRewardNet,
    BasicShapedRewardNet,
    NormalizedRewardNet,
)
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO

sys.path.insert(0, str(Path(__file__).parents[1]))
import peer

NUM_ENVS = 8
TUNED = {
    "batch_size": 512,
    "clip_range": 0.1,
    "gae_lambda": 0.98,
    "gamma": 0.995,
    "max_grad_norm": 0.9,
    "n_epochs": 20,
    "vf_coef": 0.20315938606555833,
}
MUJOCO = {
    "gail": {
        "ppo": {**TUNED, "learning_rate": 4.3984856156897565e-5, "ent_coef": 0.001255299425412744},
        "round_steps": 4096,
        "trainer": {
            "demo_batch_size": 128,
            "gen_replay_buffer_capacity": 4096,
            "n_disc_updates_per_round": 8,
        },
    },
    "airl": {
        "ppo": {**TUNED, "learning_rate": 0.0005807211840258373, "ent_coef": 0.009709494745755033},
        "round_steps": 8192,
        "trainer": {
            "demo_batch_size": 2048,
            "gen_replay_buffer_capacity": 8192,
            "n_disc_updates_per_round": 16,
        },
    },
}
EXAMPLE = {"batch_size": 64, "ent_coef": 0.0, "gamma": 0.95, "n_epochs": 5}
OTHERS = {
    "gail": {
        "ppo": {**EXAMPLE, "learning_rate": 4e-4},
        "round_steps": 16384,
        "trainer": {
            "demo_batch_size": 1024,
            "gen_replay_buffer_capacity": 512,
            "n_disc_updates_per_round": 8,
        },
    },
    "airl": {
        "ppo": {**EXAMPLE, "learning_rate": 5e-4, "clip_range": 0.1, "vf_coef": 0.1},
        "round_steps": 16384,
        "trainer": {
            "demo_batch_size": 2048,
            "gen_replay_buffer_capacity": 512,
            "n_disc_updates_per_round": 16,
        },
    },
}


def train(job):
    torch.set_num_threads(1)
    venv = make_vec_env(job.env_id, rng=np.random.default_rng(job.seed), n_envs=NUM_ENVS)
    mujoco = "mujoco" in str(venv.get_attr("spec")[0].entry_point)
    settings = (MUJOCO if mujoco else OTHERS)[job.kind]
    # At least two rounds, where the budget is shorter than one of theirs.
    steps = min(settings["round_steps"], job.steps // 2) // NUM_ENVS
    batch = min(settings["ppo"]["batch_size"], steps * NUM_ENVS)
    tuned = {
        "activation_fn": torch.nn.ReLU,
        "features_extractor_class": NormalizeFeaturesExtractor,
        "features_extractor_kwargs": {"normalize_class": RunningNorm},
        "net_arch": {"pi": [64, 64], "vf": [64, 64]},
    }
    learner = PPO(
        "MlpPolicy",
        venv,
        n_steps=steps,
        seed=job.seed,
        device="cpu",
        policy_kwargs=tuned if mujoco else None,
        **{**settings["ppo"], "batch_size": batch},
    )
    trainer_cls, net_cls = {"gail": (GAIL, BasicRewardNet), "airl": (AIRL, BasicShapedRewardNet)}[
        job.kind
    ]
    net = net_cls(venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm)
    if mujoco:
        net = NormalizedRewardNet(net, RunningNorm)
    number = len(job.expert["obs"])
    options = settings["trainer"]
    trainer = trainer_cls(
        demonstrations=Transitions(
            obs=job.expert["obs"],
            acts=job.expert["action"],
            next_obs=job.expert["next_obs"],
            dones=job.expert["terminated"],
            infos=np.array([{}] * number),
        ),
        venv=venv,
        gen_algo=learner,
        reward_net=net,
        # Real tasks end; the alternative is to refuse them.
        allow_variable_horizon=True,
        log_dir=job.path / "log",
        # It takes no batch larger than the demonstrations.
        **{**options, "demo_batch_size": min(options["demo_batch_size"], number)},
    )

    def predict(obs):
        return learner.predict(obs, deterministic=True)[0]

    trainer.train(job.steps, callback=lambda _: job.evaluate(predict, learner.num_timesteps))
    job.finish(predict, learner.num_timesteps)


if __name__ == "__main__":
    peer.main(train)
