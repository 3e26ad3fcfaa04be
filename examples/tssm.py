"""A TSSM: a transformer instead of a recurrence.

An RSSM walks along time: $h_t$ needs $h_{t-1}$. In a TSSM, as in TransDreamer, $h_t$ is what a
causal transformer makes of the tokens $(z, a)$ of all steps before $t$ within its window. All
$h_t$ of a sequence are computed at once, and each may look straight at a step long ago. That
asks for a posterior without memory: if $z_t$ needed $h_t$, there would be a chain again.

- prior $p(z_t | h_t)$: what the past lets the model expect;
- posterior $q(z_t | e_t)$: what the frame alone shows.

On the robot and in imagination it still goes step by step: keys and values of the last `window`
tokens are kept in a ring buffer, and travel through the exported file as its carry.

As a script, `python examples/tssm.py`, or as a notebook; some minutes on one CPU core.
"""

# %%
from dataclasses import replace
from pathlib import Path

import torch

import wm_core as wm

TASK, UPDATES = "seek", 1500
RUN = Path("runs/examples/tssm")

# %% [markdown]
# ## Train
# The preset `transdreamer` with two layers instead of three. Every option of `wm train` is a
# keyword, nested or by its dotted name.

# %%
options = {"world.transformer.layers": 2, "train.updates": UPDATES, "threads": 1}
end = wm.train(RUN, task=TASK, preset="transdreamer", resume=RUN.is_dir(), **options)
print(f"{end.updates} updates from {end.agent_steps} steps")

# %% [markdown]
# ## The posterior has no memory, the transformer has
# If the actions are forgotten, every $z_t$ stays the same, because it reads the frame alone;
# $h_t$ changes, because the transformer reads them.

# %%
agent = wm.Agent.load(RUN)
batch = next(wm.collect(TASK, episodes=1, agent=agent).windows(batch=1, length=20, updates=1))
forgotten = replace(batch, prev_action=0 * batch.prev_action)
with torch.no_grad():
    real, other = agent.observe(batch), agent.observe(forgotten)
print("posterior unchanged:", torch.equal(real.params, other.params))
print(f"deter changed by {(real.deter - other.deter).abs().mean():.3f} on average")

# %% [markdown]
# ## One step at a time
# What is computed at once for a sequence is computed step by step for a robot, from the ring
# buffer of the last tokens. The two agree.

# %%
window, dynamics = agent.to_device(batch), agent.world.dynamics
latent, largest = agent.core.initial(1), 0.0
with torch.no_grad():
    embed = agent.world.encoder(window.obs)
    for t in range(20):
        latent = dynamics.observe_step(
            latent,
            window.prev_action[:, t],
            embed[:, t],
            window.is_first[:, t],
            torch.zeros(1, *dynamics.latent_dist.shape),
        )
        latent = replace(latent, stoch=real.stoch[:, t])  # the same draw as above
        largest = max(largest, float((latent.deter - real.deter[:, t]).abs().max()))
print(f"largest difference {largest:.1e}; carry: {dynamics.carry_names}")

# %% [markdown]
# ## Look, export, measure
# `imagined.png` shows what the camera saw, what the model imagines and the difference; the bar
# turns orange where it imagines.

# %%
pictures = wm.show(RUN)
print(f"{pictures.strip}: imagined frames differ by {pictures.error:.1f} of 255 levels")
policy = wm.export(RUN, RUN / "policy")
print(f"carry of the file: {[pair.input for pair in policy.card.carry]}")
print(f"return {wm.evaluate(policy=RUN / 'policy', episodes=5).mean:.1f}")
