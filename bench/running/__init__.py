"""Running clips and processes that are measured."""
