"""Joins a world model, a behaviour and their optimisers to one agent."""
