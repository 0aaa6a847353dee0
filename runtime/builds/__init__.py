"""Engines on disk: their keys, their records, and which one may be used."""
