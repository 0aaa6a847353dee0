"""The reference pipeline on diffusers."""
