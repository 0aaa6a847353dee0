"""One module per protocol: what is measured in a clip, and how clips become a table."""
