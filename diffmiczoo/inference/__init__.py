"""From many pictures to a `Prediction`."""
