"""What `amodal batch` runs on: lists of clips, and what a worker does with one."""
