"""The one seam for processes: commands are values, and nothing else starts a process."""
