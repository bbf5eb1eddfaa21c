"""Rows of JSON as typed columns: what was seen, what kind of column holds it, and the rows as text cells."""
