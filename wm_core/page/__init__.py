"""A page on which people watch robots learn, served beside the trainer or by itself."""
