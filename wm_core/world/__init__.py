"""Learns what happens: encoder, dynamics, decoder, heads, and the losses that tie them."""
