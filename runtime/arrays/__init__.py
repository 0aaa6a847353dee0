"""Conversion of callers' arrays, and resizing on a device."""
