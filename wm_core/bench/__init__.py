"""What ``wm bench`` measures: one module per subject, each with ``run(argv) -> int``."""
