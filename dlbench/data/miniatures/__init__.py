"""Small scenes in the real layouts of data sets, for tests and first runs."""
