"""Noise schedule, training objective and sampler (eq. 7, 9, 10; Algorithms 1 and 2)."""
