"""Training in two stages: the DCG model, then the diffusion with the DCG frozen."""
