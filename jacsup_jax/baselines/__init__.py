"""Methods of others, trained on the same data."""
