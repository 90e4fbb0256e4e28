"""Small generated data sets in the real layouts."""
