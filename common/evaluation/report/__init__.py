"""Presentation of results: tables, figures, reports."""
