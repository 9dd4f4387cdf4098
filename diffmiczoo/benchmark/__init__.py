"""How fast this machine is, with each optimisation switched on and off."""
