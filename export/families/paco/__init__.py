"""PACO in torch, composed of Stable Diffusion's networks as diffusers has them; no graphs yet."""
