"""Plans the GPU memory of a run, and chooses a way of running that fits a budget."""
