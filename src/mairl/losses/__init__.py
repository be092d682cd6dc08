"""Losses: pure functions of (parameters, batch, key)."""
