"""What a machine could reach at best, and what a clip asks of it."""
