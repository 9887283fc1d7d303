"""Figures: functions from JSON documents to SVG, for a separate file and for the report's page."""
