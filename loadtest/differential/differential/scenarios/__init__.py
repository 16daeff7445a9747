"""The scenarios, a module a family of requests."""
