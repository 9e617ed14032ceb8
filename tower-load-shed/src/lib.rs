//! Answers with an error, rather than waiting, where a service has no capacity.
