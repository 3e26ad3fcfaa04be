"""An RSSM with Gaussian latents.

The world model of PlaNet and of the first Dreamer. It carries two things from step to step:

- `deter`, $h_t$: what a GRU remembers of the past, $h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1})$;
- `stoch`, $z_t$: what nobody could predict of the present; here 30 numbers, each with a mean and
  a standard deviation.

There are two distributions of $z_t$:

- the prior $p(z_t | h_t)$, before the camera is read: a prediction;
- the posterior $q(z_t | h_t, e_t)$, after it: $e_t$ is the encoder's embedding of the frame.

Their distance (KL, in nats) is what the frame told the model that it did not know. A draw is
mean + standard deviation x noise, so gradients pass through it. A Gaussian cannot say "either
left or right": it puts its mean in between. Categorical latents can: see `rssm_discrete.py`.

As a script, `python examples/rssm_continuous.py`, or as a notebook; some minutes on one CPU
core.
"""

# %%
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import wm_core as wm

TASK, UPDATES = "seek", 1500
RUN = Path("runs/examples/rssm_continuous")

# %% [markdown]
# ## Train
# The agent acts in the task, records what happens and learns from it. Actor, critic and losses
# are DreamerV3's; only the latents differ. Run this again with more updates and it continues.

# %%
torch.set_num_threads(1)
end = wm.train(
    RUN,
    task=TASK,
    preset="dreamer_v3",
    resume=RUN.is_dir(),
    world={"latent": "gaussian", "gaussian": {"size": 30}},
    train={"updates": UPDATES, "eval_every": 0, "video_every": 0},
)
print(f"{end.updates} updates from {end.agent_steps} steps")

# %% [markdown]
# ## Prior and posterior
# One episode of the trained agent, seen by its world model. Where the KL is high, the frame was
# a surprise; where the prior's standard deviation is small, the model was sure what it would
# see.

# %%
agent = wm.Agent.load(RUN)
batch = next(wm.collect(TASK, episodes=1, agent=agent).windows(batch=1, length=20, updates=1))
dynamics = agent.world.dynamics
with torch.no_grad():
    posterior = agent.observe(batch)
    prior = dynamics.prior(posterior.deter)
    nats = dynamics.latent_dist.kl(posterior.params, prior)[0]
for t in range(0, 20, 5):
    before, after = prior[0, t, 1].mean(), posterior.params[0, t, 1].mean()
    print(f"step {t:2}: std {before:.2f} -> {after:.2f}, the frame told {nats[t]:.2f} nats")

# %% [markdown]
# ## Imagine
# Five frames are seen; then the model goes on alone, once with the recorded actions and once
# with none. From the top: camera, imagined as it happened, imagined standing still.

# %%
still = replace(batch, prev_action=batch.prev_action * (np.arange(20) < 5)[:, None])
rows = [batch.obs["image"], *(wm.open_loop(agent, b, observed=5)["image"] for b in (batch, still))]
Image.fromarray(np.concatenate([np.hstack(row[0, ::2]) for row in rows])).save(RUN / "still.png")

# %% [markdown]
# ## Take it away
# One ONNX file with the rollout that proves it, measured beside random actions; a robot runs it
# without torch.

# %%
wm.show(RUN)  # imagined.gif and imagined.png
policy = wm.export(RUN, RUN / "policy")
for result in (
    wm.evaluate(policy=RUN / "policy", episodes=5),
    wm.evaluate(random=True, task=TASK, episodes=5),
):
    print(f"{result.actor}: return {result.mean:.1f} of {len(result.returns)} episodes")
