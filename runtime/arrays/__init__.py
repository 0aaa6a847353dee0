"""Arrays wherever they lie, and their resampling."""
