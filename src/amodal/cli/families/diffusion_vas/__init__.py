"""Diffusion-VAS on the command line."""
