//! Retries failed requests under a policy, a budget and a backoff.
