"""Other ways of running the same model, measured in turns."""
