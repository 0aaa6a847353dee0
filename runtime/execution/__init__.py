"""Components loaded on a backend, and delivery of their results."""
