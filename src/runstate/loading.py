"""Disables the garbage collector; imported first, because collections during imports cost time and free nothing."""

import gc

gc.disable()
