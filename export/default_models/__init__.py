"""Training of the default model: a small Diffusion-VAS, from random weights, on scenes of `amodal.runtime.scenes`.

`python -m amodal.export.default_models DIR` runs all of it: the VAE, the latents of all scenes and the U-Net of both
stages, the decoder of `complete`, and the bundle.
"""
