"""One-off studies behind figures in the docs."""
