//! Puts a bounded queue in front of a service and makes it cloneable.
