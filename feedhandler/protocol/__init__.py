"""The vocabulary of the API, both directions, with no behaviour."""
