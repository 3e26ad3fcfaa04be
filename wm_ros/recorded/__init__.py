"""A robot's bag, played again: the topics of a recording take the way that they take live."""
