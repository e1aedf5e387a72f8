"""Results for people: tables, figures, reports."""
