"""Labelled images: where they are read from, how they are split and checked, and as squares for training."""
