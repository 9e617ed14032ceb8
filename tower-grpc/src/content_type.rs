//! The names under which gRPC travels.

const GRPC: &[u8] = b"application/grpc";

/// The format that a content type of gRPC names, which is empty where it names none; `None` for any other content type.
///
/// What stands before it has no case (RFC 9110, section 8.3.1), and parameters may follow.
pub(crate) fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    let (base, rest) = content_type.split_at_checked(GRPC.len())?;
    if !base.eq_ignore_ascii_case(GRPC) {
        return None;
    }
    match rest {
        [] | [b';' | b' ', ..] => Some(&[]),
        [b'+', rest @ ..] => {
            let end = rest.iter().position(|byte| b"; ".contains(byte));
            Some(&rest[..end.unwrap_or(rest.len())])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_grpc_are_known_from_others() {
        for (content_type, named) in [
            ("application/grpc", ""),
            ("application/grpc+proto", "proto"),
            ("application/grpc;charset=utf-8", ""),
            ("application/grpc ; charset=utf-8", ""),
            ("application/grpc+proto; x=y", "proto"),
            ("Application/GRPC+json", "json"),
        ] {
            let subtype = subtype(content_type.as_bytes());
            assert_eq!(subtype, Some(named.as_bytes()), "{content_type}");
        }
        for other in [
            "",
            "application",
            "application/json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpcweb",
        ] {
            assert_eq!(subtype(other.as_bytes()), None, "{other}");
        }
    }
}
