"""Comparing two files of results."""
