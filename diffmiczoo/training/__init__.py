"""Training: the DCG, or its two streams one after the other, then the diffusion with the DCG frozen."""
