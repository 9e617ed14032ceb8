//! Admits, rejects or rewrites requests by a predicate.
