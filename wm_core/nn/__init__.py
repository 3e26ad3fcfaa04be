"""Layers, distributions and optimisers that know nothing of reinforcement learning."""
