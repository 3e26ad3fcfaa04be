"""Holds the trainer's end of the wire: the HTTP service, its tokens, its policies."""
