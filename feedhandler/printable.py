"""Text from elsewhere, made fit for a terminal or a log: one line, no controls."""

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return *text* with what is not printable escaped as repr() would.

    That is line ends, ANSI sequences and whatever turns the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
