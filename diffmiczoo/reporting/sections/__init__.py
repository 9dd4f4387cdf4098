"""Sections of a report's page: each is a function from a `Report` to a `Section`, and says so where it has nothing."""
