"""Opens the node's topics, services and timers, a class for each group, and closes them again."""
