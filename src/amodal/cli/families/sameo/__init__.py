"""The command line of SAMEO."""
