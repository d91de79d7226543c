"""The claims: one test each, imported by nobody."""
