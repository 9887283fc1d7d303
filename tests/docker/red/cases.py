"""The table: every way in which the labs of these tests are broken, and the checks that each turns red."""

from __future__ import annotations

from tests.docker.red import deliveries, logins, openings

CASES = (*logins.CASES, *deliveries.CASES, *openings.CASES)
