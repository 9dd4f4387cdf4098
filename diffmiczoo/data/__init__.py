"""Images with labels: manifests, folders per class, splits and augmentation."""
