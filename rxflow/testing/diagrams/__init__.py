"""Marble diagrams: parsed, compared and drawn. Pure."""
