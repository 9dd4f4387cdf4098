"""The commands of `diffmiczoo`, each a thin call into the package."""
