"""From one image to one tensor, or to one `ImageError`."""
