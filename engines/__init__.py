"""What turns graphs into executables and holds one against the other. Never imports torch."""
