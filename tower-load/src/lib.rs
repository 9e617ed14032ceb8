//! Measures how loaded a service is, for balancers to compare.
