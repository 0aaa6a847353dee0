"""Preparing frames, masks and depth for a network, and turning what it drew into pictures."""
