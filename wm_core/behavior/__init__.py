"""Behaviours learn what to do, most of them in the world model's imagination."""
