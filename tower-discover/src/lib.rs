//! Discovery: a stream of services that come and go.
