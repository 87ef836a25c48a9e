"""For Cython only; see orders.pxd."""
