"""Figures: functions from JSON documents to SVG, for a file of its own and for the report's page."""
