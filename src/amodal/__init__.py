"""amodal: a deployment runtime for amodal perception."""
