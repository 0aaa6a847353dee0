"""SAMEO: EfficientSAM tuned to give an object's whole mask from the box of its visible part, picture by picture."""
