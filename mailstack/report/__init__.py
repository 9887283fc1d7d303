"""Results for people and machines: JSON, JUnit, the experiment's page and its figures."""
