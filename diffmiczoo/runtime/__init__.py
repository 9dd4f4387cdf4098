"""How things are computed, not what: faster kernels, precision, modes, memory, progress bars."""
