"""Networks and processes that fail, one fault of the transport after the other."""
