"""From one picture to one tensor, or to one `ImageError`."""
