"""Merging models: a donor's weight change, projected away from what the target already does, put into the target."""
