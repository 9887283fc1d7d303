"""Pictures of what happened: functions of the JSON documents to SVG that stands alone, and in the report's page."""
