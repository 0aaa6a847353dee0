"""The networks of Diffusion-VAS as graphs."""
