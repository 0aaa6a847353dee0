"""The manifest of a bundle, and opening the folder it describes."""
