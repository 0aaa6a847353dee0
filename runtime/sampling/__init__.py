"""The EDM schedule, sampler and guidance, and noise that equals torch's."""
