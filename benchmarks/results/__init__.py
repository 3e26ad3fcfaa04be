"""What every preset comes to on a task, given the same CPU time."""
