"""What only a GPU can show, measured step by step."""
