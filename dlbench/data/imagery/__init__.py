"""Georeferenced images: the pixels of a scene, on its grid (`dlbench.data.grid.Imagery`)."""
