"""What GPU memory a run takes, and which way of running fits into a budget."""
