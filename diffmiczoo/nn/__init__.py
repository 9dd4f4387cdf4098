"""The parts of DiffMIC-v2; each stands alone and `diffmiczoo.model` wires them together."""
