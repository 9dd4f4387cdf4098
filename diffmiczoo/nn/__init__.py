"""The parts of DiffMIC-v2, one file per block of equations; `diffmiczoo.model` wires them together."""
