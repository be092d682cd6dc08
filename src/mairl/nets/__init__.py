"""Networks and distributions: arrays in, arrays out."""
