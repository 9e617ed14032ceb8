//! Services that make services and connections.
