"""File formats of models. `npz` is the native one; every other module converts from or to it."""
