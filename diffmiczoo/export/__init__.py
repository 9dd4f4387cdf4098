"""A model as a file for other programs, with the proof that it answers the same, and the program that runs it."""
