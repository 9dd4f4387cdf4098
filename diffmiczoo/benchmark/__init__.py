"""How fast this machine is, with and without what makes ours fast."""
