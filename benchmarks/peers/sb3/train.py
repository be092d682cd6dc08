"""Discriminator-actor-critic (DAC) on Stable-Baselines3's SAC.

After Kostrikov et al., *Discriminator-Actor-Critic*, ICLR 2019: off-policy adversarial imitation
with reward log D − log(1 − D), which is the discriminator's logit, computed anew for each batch
from replay; a gradient penalty of 10 on the discriminator; absorbing states after episodes that
end. The policy is learned by SAC instead of their TD3, which Orsini et al., *What Matters for
Adversarial Imitation Learning?*, NeurIPS 2021, found best; their discriminator's sizes, Adam at
1e-3, batches of 256, one update of each for every environment step. Box actions only.
"""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import peer

BATCH = 256
GRADIENT_PENALTY = 10.0


class Flag(gym.ObservationWrapper):
    """Observations with one entry more: 1 in the absorbing state alone, which is (0, ..., 0, 1)."""

    def __init__(self, env):
        super().__init__(env)
        low, high = (np.append(b, e) for b, e in zip(bounds(env), (0.0, 1.0), strict=True))
        self.observation_space = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32))

    def observation(self, observation):
        return with_flag(observation)


def bounds(env):
    return env.observation_space.low, env.observation_space.high


def with_flag(obs):
    return np.concatenate([obs, np.zeros((*np.shape(obs)[:-1], 1))], axis=-1).astype(np.float32)


def absorbing(obs):
    return np.concatenate([np.zeros(np.shape(obs)[-1] - 1), [1.0]]).astype(np.float32)


class Replay(ReplayBuffer):
    """Gives batches rewards of the discriminator, and continues ended episodes absorbed."""

    reward = None

    def add(self, obs, next_obs, action, reward, done, infos):
        if done[0] and not infos[0].get("TimeLimit.truncated", False):
            end = absorbing(obs)[None]
            super().add(obs, end, action, reward, np.zeros(1), infos)
            super().add(end, end, np.zeros_like(action), reward, np.zeros(1), [{}])
        else:
            # Nothing ends: cut off episodes are bootstrapped.
            super().add(obs, next_obs, action, reward, np.zeros(1), infos)

    def _get_samples(self, batch_inds, env=None):
        data = super()._get_samples(batch_inds, env)
        if self.reward is None:
            return data
        return data._replace(rewards=self.reward(data.observations, data.actions))


class DAC(SAC):
    def prepare(self, expert_obs, expert_action):
        """Make the discriminator; expert actions are scaled as SAC stores them."""
        self.expert = torch.as_tensor(np.hstack([expert_obs, expert_action]), dtype=torch.float32)
        sizes = self.expert.shape[1]
        self.discriminator = nn.Sequential(
            *(nn.Linear(sizes, 256), nn.Tanh()),
            *(nn.Linear(256, 256), nn.Tanh()),
            nn.Linear(256, 1),
        )
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=1e-3)
        self.replay_buffer.reward = self.reward

    def reward(self, obs, action):
        with torch.no_grad():
            return self.discriminator(torch.cat([obs, action], dim=1))

    def train(self, gradient_steps, batch_size=BATCH):
        for _ in range(gradient_steps):
            self.discriminate()
        super().train(gradient_steps, batch_size)

    def discriminate(self):
        """One step: binary cross-entropy, and a gradient of norm 1 between the two sides."""
        policy = self.replay_buffer.sample(BATCH)
        fake = torch.cat([policy.observations, policy.actions], dim=1)
        real = self.expert[torch.randint(len(self.expert), (BATCH,))]
        mix = torch.rand(BATCH, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(
            self.discriminator(between).sum(), between, create_graph=True
        )
        logits = self.discriminator(torch.cat([real, fake]))
        labels = torch.cat([torch.ones(BATCH, 1), torch.zeros(BATCH, 1)])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss = loss + GRADIENT_PENALTY * ((slope.norm(dim=1) - 1) ** 2).mean()
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self.discriminator_optimizer.step()


class Evaluate(BaseCallback):
    def __init__(self, job, predict):
        super().__init__()
        self.job, self.predict = job, predict

    def _on_step(self):
        self.job.evaluate(self.predict, self.num_timesteps)
        return True


def train(job):
    torch.set_num_threads(1)
    env = Flag(gym.make(job.env_id))
    if not isinstance(env.action_space, gym.spaces.Box):
        sys.exit(f"SAC needs Box actions; those of {job.env_id} are {env.action_space}")
    learner = DAC(
        "MlpPolicy",
        env,
        learning_starts=min(1000, job.steps // 10),
        batch_size=BATCH,
        replay_buffer_class=Replay,
        seed=job.seed,
        device="cpu",
    )
    obs, action = with_flag(job.expert["obs"]), job.expert["action"]
    action = learner.policy.scale_action(action)
    if ended := int(job.expert["terminated"].sum()):
        # The expert's absorbing states, as many as in the policy's replay.
        obs = np.vstack([obs, np.tile(absorbing(obs), (ended, 1))])
        action = np.vstack([action, np.zeros((ended, action.shape[1]))])
    learner.prepare(obs, action)

    def predict(obs):
        return learner.predict(with_flag(obs), deterministic=True)[0]

    learner.learn(job.steps, callback=Evaluate(job, predict))
    job.finish(predict, learner.num_timesteps)


if __name__ == "__main__":
    peer.main(train)
