"""The networks of each family, and the plan of its graphs."""
