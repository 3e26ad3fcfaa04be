"""Collects beside the learner, in processes of its own, at the pace of the replay ratio."""
