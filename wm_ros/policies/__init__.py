"""Finds, checks, holds and swaps the policies that a robot runs."""
