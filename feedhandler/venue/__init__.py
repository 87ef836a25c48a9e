"""The reference venue: the server side of the API, a program of its own."""
