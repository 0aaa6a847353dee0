"""Training of the default model of SAMEO: a small network, from random weights, on single frames of drawn scenes.

`python -m amodal.export.default_models.sameo DIR` draws the scenes, trains the network and writes the bundle.
"""
