"""Recipes: one world model, one behavior, their optimiser."""
