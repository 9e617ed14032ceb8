//! The codes with which calls end.

use std::fmt;

use http::HeaderValue;

/// How a call has ended: the codes that all implementations of gRPC share.
///
/// Their meanings are those of the gRPC documentation, "Status codes and their use in gRPC".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The caller gave the call up.
    Cancelled = 1,
    /// An error that nothing more is known of.
    Unknown = 2,
    /// The caller's arguments are wrong, whatever the state of the system.
    InvalidArgument = 3,
    /// The time was up before the call ended. It may have been done all the same.
    DeadlineExceeded = 4,
    /// What was asked for isn't there.
    NotFound = 5,
    /// What was to be made is there already.
    AlreadyExists = 6,
    /// The caller is known, and may not do this.
    PermissionDenied = 7,
    /// A quota is used up, or a message is larger than allowed.
    ResourceExhausted = 8,
    /// The system isn't in the state that the call needs, and trying again won't help.
    FailedPrecondition = 9,
    /// The call was aborted by a conflict; the whole transaction may be tried again.
    Aborted = 10,
    /// The arguments reach past what there is.
    OutOfRange = 11,
    /// There is no such method, or it doesn't do this.
    Unimplemented = 12,
    /// Something is broken.
    Internal = 13,
    /// The service can't be reached now; the call may be tried again after a while.
    Unavailable = 14,
    /// Data is lost or corrupt.
    DataLoss = 15,
    /// It isn't known who the caller is.
    Unauthenticated = 16,
}

const CODES: [(Code, &str, &str); 17] = [
    (Code::Ok, "OK", "0"),
    (Code::Cancelled, "CANCELLED", "1"),
    (Code::Unknown, "UNKNOWN", "2"),
    (Code::InvalidArgument, "INVALID_ARGUMENT", "3"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "4"),
    (Code::NotFound, "NOT_FOUND", "5"),
    (Code::AlreadyExists, "ALREADY_EXISTS", "6"),
    (Code::PermissionDenied, "PERMISSION_DENIED", "7"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED", "8"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION", "9"),
    (Code::Aborted, "ABORTED", "10"),
    (Code::OutOfRange, "OUT_OF_RANGE", "11"),
    (Code::Unimplemented, "UNIMPLEMENTED", "12"),
    (Code::Internal, "INTERNAL", "13"),
    (Code::Unavailable, "UNAVAILABLE", "14"),
    (Code::DataLoss, "DATA_LOSS", "15"),
    (Code::Unauthenticated, "UNAUTHENTICATED", "16"),
];

impl Code {
    /// The code with this number; [`Unknown`](Self::Unknown) where there is none.
    pub fn from_i32(number: i32) -> Self {
        usize::try_from(number)
            .ok()
            .and_then(|index| CODES.get(index))
            .map_or(Self::Unknown, |(code, ..)| *code)
    }

    /// Its name as the gRPC documentation writes it: `NOT_FOUND`.
    pub const fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The code that a `grpc-status` says; one that isn't a number of a code is `Unknown`.
    pub(crate) fn from_header(value: &[u8]) -> Self {
        match *value {
            [digit @ b'0'..=b'9'] => Self::from_i32(i32::from(digit - b'0')),
            [b'1', digit @ b'0'..=b'6'] => Self::from_i32(i32::from(10 + digit - b'0')),
            _ => Self::Unknown,
        }
    }

    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::from_static(CODES[self as usize].2)
    }

    /// What a response means that has no `grpc-status`, as from a proxy, by its HTTP status.
    ///
    /// The table is that of the gRPC documentation, "HTTP to gRPC Status Code Mapping".
    pub(crate) fn from_http(status: http::StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Code> for i32 {
    fn from(code: Code) -> Self {
        code as Self
    }
}

impl From<i32> for Code {
    fn from(number: i32) -> Self {
        Self::from_i32(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for (index, (code, name, digits)) in CODES.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            assert_eq!(Code::from_header(digits.as_bytes()), code);
            assert_eq!(code.to_header(), digits);
            assert_eq!(code.to_string(), name);
            assert_eq!(Code::from_i32(i32::from(code)), code);
        }
    }

    #[test]
    fn what_is_no_code_is_unknown() {
        for value in ["", "17", "99", "-1", "01", "0 ", "ok", "123456789012"] {
            assert_eq!(
                Code::from_header(value.as_bytes()),
                Code::Unknown,
                "{value}"
            );
        }
        assert_eq!(Code::from_i32(-1), Code::Unknown);
        assert_eq!(Code::from_i32(17), Code::Unknown);
    }

    #[test]
    fn an_http_status_maps_by_the_table() {
        let table = [
            (200, Code::Unknown),
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (418, Code::Unknown),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
        ];
        for (http, code) in table {
            let status = http::StatusCode::from_u16(http).unwrap();
            assert_eq!(Code::from_http(status), code, "{http}");
        }
    }
}
