"""Experience at rest: chunk files in, batches of windows out; numpy, never torch."""
