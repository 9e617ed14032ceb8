//! A cache of services that keeps the ready ones apart.
