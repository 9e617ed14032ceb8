//! A web framework that is trivial to begin with and production grade out of the box.
