//! The standard error model: what a [`Status`](crate::Status) can say to programs.
//!
//! The types are those of `google/rpc/status.proto` and `google/rpc/error_details.proto`, which other languages
//! know, too. [`Status::with_detail`](crate::Status::with_detail) adds one,
//! [`Status::detail`](crate::Status::detail) finds one.

use prost::{Message, Name};
use prost_types::{Any, Duration};
use std::collections::HashMap;

/// A status with its details, as it travels in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// The number of the code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Messages of any type.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// When to try again: no earlier than after the delay.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// How long to wait.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<Duration>,
}

/// Where in the code it happened. Not for callers outside of a company.
#[derive(Clone, PartialEq, Message)]
pub struct DebugInfo {
    /// The frames of the stack.
    #[prost(string, repeated, tag = "1")]
    pub stack_entries: Vec<String>,
    /// Whatever else there is.
    #[prost(string, tag = "2")]
    pub detail: String,
}

/// Which quotas were used up.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaFailure {
    /// The quotas.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<QuotaViolation>,
}

/// A quota that was used up.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaViolation {
    /// Of whom: `clientip:10.0.0.1`, `project:42`.
    #[prost(string, tag = "1")]
    pub subject: String,
    /// Which, in words.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// What exactly went wrong, for programs to decide by.
#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    /// The cause: `API_DISABLED`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// In which domain the reason has its meaning: `example.com`.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// Whatever else there is.
    #[prost(map = "string, string", tag = "3")]
    pub metadata: HashMap<String, String>,
}

/// Which preconditions didn't hold.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionFailure {
    /// The preconditions.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<PreconditionViolation>,
}

/// A precondition that didn't hold.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionViolation {
    /// Its type: `TOS`.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Of what: `google.com/cloud`.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// Which, in words.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// Which fields of the request are wrong.
#[derive(Clone, PartialEq, Message)]
pub struct BadRequest {
    /// The fields.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// A field that is wrong.
#[derive(Clone, PartialEq, Message)]
pub struct FieldViolation {
    /// The path to it: `emails[1].address`.
    #[prost(string, tag = "1")]
    pub field: String,
    /// What is wrong, in words.
    #[prost(string, tag = "2")]
    pub description: String,
    /// What is wrong, for programs: `TOO_LONG`.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// By what the request can be found in logs.
#[derive(Clone, PartialEq, Message)]
pub struct RequestInfo {
    /// The request's name.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// What the server needs beside it, of no meaning to others.
    #[prost(string, tag = "2")]
    pub serving_data: String,
}

/// What was asked for.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceInfo {
    /// Its type.
    #[prost(string, tag = "1")]
    pub resource_type: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub resource_name: String,
    /// Whose it is.
    #[prost(string, tag = "3")]
    pub owner: String,
    /// What went wrong with it, in words.
    #[prost(string, tag = "4")]
    pub description: String,
}

/// Where to read on.
#[derive(Clone, PartialEq, Message)]
pub struct Help {
    /// The pages.
    #[prost(message, repeated, tag = "1")]
    pub links: Vec<HelpLink>,
}

/// A page to read.
#[derive(Clone, PartialEq, Message)]
pub struct HelpLink {
    /// What it offers.
    #[prost(string, tag = "1")]
    pub description: String,
    /// Where it is.
    #[prost(string, tag = "2")]
    pub url: String,
}

/// A message in a language that its reader knows.
#[derive(Clone, PartialEq, Message)]
pub struct LocalizedMessage {
    /// The language: `fr-CH`.
    #[prost(string, tag = "1")]
    pub locale: String,
    /// The message.
    #[prost(string, tag = "2")]
    pub message: String,
}

macro_rules! named {
    ($($type:ident = $name:literal),* $(,)?) => {
        $(
            impl Name for $type {
                const NAME: &'static str = $name;
                const PACKAGE: &'static str = "google.rpc";

                fn full_name() -> String {
                    concat!("google.rpc.", $name).to_owned()
                }

                fn type_url() -> String {
                    concat!("type.googleapis.com/google.rpc.", $name).to_owned()
                }
            }
        )*
    };
}

named! {
    RpcStatus = "Status",
    RetryInfo = "RetryInfo",
    DebugInfo = "DebugInfo",
    QuotaFailure = "QuotaFailure",
    ErrorInfo = "ErrorInfo",
    PreconditionFailure = "PreconditionFailure",
    BadRequest = "BadRequest",
    RequestInfo = "RequestInfo",
    ResourceInfo = "ResourceInfo",
    Help = "Help",
    LocalizedMessage = "LocalizedMessage",
}
