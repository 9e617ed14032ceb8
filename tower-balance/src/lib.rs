//! Balances requests over discovered services by the power of two choices.
