"""Comparison of generators, variants or checkpoints on the same latents: figures, and the worst cases to look at."""
