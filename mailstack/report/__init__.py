"""Results for people and programs: JSON, JUnit, the experiment's page and its figures."""
