"""Figures of the report. Each function returns a matplotlib Figure; none touches the state of pyplot."""
