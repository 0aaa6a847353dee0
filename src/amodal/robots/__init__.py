"""amodal on robots: messages in, whole objects out."""
