"""Numbers from arrays of probabilities and targets; knows no model."""
