"""Numbers from arrays of probabilities and targets; no model is run here."""
