"""SAMEO on the command line."""
