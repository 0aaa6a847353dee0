"""Prepares frames, masks and depth for the networks, and turns their outputs into pictures."""
