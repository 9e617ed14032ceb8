//! An ambient deadline that is set at the edge and shrinks on the way.
