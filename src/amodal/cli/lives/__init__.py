"""What `amodal live` does with its options."""
