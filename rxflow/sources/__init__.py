"""Acknowledged sources: what all have in common, and those that are made of a feed."""
