"""Small generated trees in the real layouts, one file a data set."""
