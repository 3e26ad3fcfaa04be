"""World models that train a policy from a robot's own cameras (the trainer's side)."""
