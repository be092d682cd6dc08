"""Learning algorithms: each composes the parts below it."""
