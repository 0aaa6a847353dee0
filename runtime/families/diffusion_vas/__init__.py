"""Diffusion-VAS (Chen, Ramanan, Khurana, CVPR 2025)."""
