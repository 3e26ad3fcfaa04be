"""An RSSM with categorical latents.

The world model of DreamerV2 and DreamerV3. As in `rssm_continuous.py`, a GRU carries `deter`
$h_t$ from step to step, and `stoch` $z_t$ is what nobody could predict of the present. Here
$z_t$ is 16 choices among 16 classes, one-hot:

- the prior $p(z_t | h_t)$ gives the probability of every class before the camera is read;
- the posterior $q(z_t | h_t, e_t)$ gives it afterwards.

Training draws the two together: the prior learns to predict, and the posterior to say no more
than can be predicted. In imagination the model draws from its prior, and there the actor learns.
A drawn class has no gradient, so the gradient of its probabilities is used (straight through).
One share in a hundred of every distribution is uniform (`unimix`), so that no class is ever
impossible.

As a script, `python examples/rssm_discrete.py`, or as a notebook; some minutes on one CPU core.
"""

# %%
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import wm_core as wm

TASK, UPDATES = "seek", 1500
FOLDER = Path("runs/examples/rssm_discrete")

# %% [markdown]
# ## Learn from recorded episodes
# Twenty episodes of random actions are all the data. They stay in memory, as episodes of your
# own would (`wm.Episodes.from_arrays`), and the agent learns from windows of them.

# %%
data = wm.collect(TASK, episodes=20)
choices = {"latent": "categorical", "categorical": {"groups": 16, "classes": 16}}
agent = wm.Agent.create("dreamer_v3", data.spec, world=choices)
losses = [agent.update(b)["loss"] for b in data.windows(batch=16, length=32, updates=UPDATES)]
print(f"{agent.updates} updates from {len(data)} steps: loss {losses[0]:.0f} -> {losses[-1]:.0f}")
FOLDER.mkdir(parents=True, exist_ok=True)
agent.save(FOLDER / "agent.pt")  # wm.Agent.load goes on from here

# %% [markdown]
# ## What the classes say
# The prior of a group that knows nothing has an entropy of log 16 = 2.77 nats. The more the
# model has learnt, the lower it is; the posterior's is lower still.

# %%
(batch,) = data.windows(batch=1, length=20, updates=1, seed=1)
with torch.no_grad():
    posterior = agent.observe(batch)  # its params are log-probabilities (B, T, groups, classes)
    prior = agent.world.dynamics.prior(posterior.deter)
for name, log_p in (("prior", prior), ("posterior", posterior.params)):
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    print(f"{name}: {entropy:.2f} nats in a group on average")

# %% [markdown]
# ## Several futures
# After five frames every draw imagines a future of its own: either left or right, never half of
# both. From the top: camera, and four futures with the same actions.

# %%
futures = [wm.open_loop(agent, batch, observed=5, seed=seed)["image"] for seed in range(4)]
rows = [np.hstack(frames[0, ::2]) for frames in (batch.obs["image"], *futures)]
Image.fromarray(np.concatenate(rows)).save(FOLDER / "futures.png")

# %% [markdown]
# ## A policy that runs without torch
# The exported file acts: observation and carry in, action and carry out.

# %%
engine = wm.PolicyEngine(agent.export(FOLDER / "policy", task=TASK), seed=0, mean=True)
print(f"{engine.runner.card.preset}: {engine.runner.card.learner_updates} updates")
obs = {name: frames[0, 0] for name, frames in batch.obs.items()}
action = np.zeros(agent.spec.action.size, np.float32)
for t in range(3):
    action = engine.act(obs, action, t == 0).action
    print(f"action {action.round(2)}")
print(f"return {wm.evaluate(policy=FOLDER / 'policy', episodes=5).mean:.1f}")
