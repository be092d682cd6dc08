"""Showing a run: live, in a picture, and in words. Draws plain values; trains nothing."""
