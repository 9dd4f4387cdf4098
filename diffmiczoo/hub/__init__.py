"""Weights files, their checksums, cards and the Hugging Face Hub; builds no network itself."""
