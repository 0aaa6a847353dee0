"""One module per format of a data set; each gives clips, and says what is missing on disk."""
