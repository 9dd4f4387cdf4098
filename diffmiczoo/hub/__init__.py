"""Weights files, their checksums and the Hugging Face Hub; knows no names and no networks."""
