"""How the default model is made: a small Diffusion-VAS, trained from nothing on scenes of `amodal.runtime.scenes`.

`python -m amodal.export.default_models DIR` runs it all: VAE, latents of all scenes and the U-Net of both stages,
the decoder of `complete` once more, bundle.
"""
