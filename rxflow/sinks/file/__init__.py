"""Rows in a file that lose nothing committed."""
