"""SAMEO (EfficientSAM with a tuned decoder): checkpoint, torch network, graphs and export plan."""
