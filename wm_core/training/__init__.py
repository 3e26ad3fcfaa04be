"""Collecting experience, learning from it, judging the result: the loop around an agent."""
