"""A second family, the smallest that there can be: two networks, one task, no noise. Generic code knows none of it."""
