"""Models that are no stack of our cells: a class of a person's own, behind the interface of our networks."""
