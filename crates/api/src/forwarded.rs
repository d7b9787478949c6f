//! Who a forwarded call comes from: written by the manager that forwards, read by the leader.
//!
//! These headers are worth what the certificate beside them is worth. The guard takes them from managers of this cluster
//! only, and refuses the call of anybody else who sends them.

use crate::caller::{Caller, Transport};
use crate::error::ApiError;
use std::fmt::Write as _;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use warren_proto::headers::{
    FORWARDED, FORWARDED_NAME, FORWARDED_NODE, FORWARDED_ROLE, FORWARDED_VIA,
};
use warren_types::{NodeId, Role};

/// Longest value of one of these headers, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// Does somebody say that this call is forwarded?
pub(crate) fn claimed(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// Takes the headers out.
pub(crate) fn remove(headers: &mut HeaderMap) {
    for name in FORWARDED {
        headers.remove(name);
    }
}

/// Says for whom a call is forwarded.
pub(crate) fn write(headers: &mut HeaderMap, caller: &Caller) {
    remove(headers);
    headers.insert(FORWARDED_ROLE, HeaderValue::from_static(caller.role.name()));
    headers.insert(FORWARDED_NAME, encoded(&caller.name));
    headers.insert(FORWARDED_VIA, encoded(&caller.transport.to_string()));
    if let Some(node) = caller.node {
        headers.insert(FORWARDED_NODE, encoded(&node.to_string()));
    }
}

/// For whom the manager `by` forwards this call.
///
/// # Errors
/// [`ApiError::Invalid`] when the headers do not name one caller.
pub(crate) fn read(headers: &HeaderMap, by: NodeId) -> Result<Caller, ApiError> {
    let role = single(headers, FORWARDED_ROLE)?
        .and_then(|name| Role::from_name(&name))
        .ok_or_else(|| wrong(FORWARDED_ROLE))?;
    let name = single(headers, FORWARDED_NAME)?.ok_or_else(|| wrong(FORWARDED_NAME))?;
    let via = single(headers, FORWARDED_VIA)?.ok_or_else(|| wrong(FORWARDED_VIA))?;
    let node = single(headers, FORWARDED_NODE)?
        .map(|text| text.parse().map_err(|_| wrong(FORWARDED_NODE)))
        .transpose()?;
    // The same rule as for certificates: a node has an id, a person has none.
    if matches!(role, Role::Worker | Role::Manager) != node.is_some() {
        return Err(wrong(FORWARDED_NODE));
    }
    Ok(Caller {
        role,
        name,
        node,
        transport: Transport::Forwarded { by, via },
    })
}

fn wrong(header: &'static str) -> ApiError {
    ApiError::field(
        header,
        "does not say who a forwarded call is from",
        "managers of one cluster have to run neighbouring versions; compare `warren node list -o wide`",
    )
}

fn single(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.len() <= VALUE_BYTES_MAX => decoded(value.as_bytes())
            .map(Some)
            .ok_or_else(|| wrong(name)),
        _ => Err(wrong(name)),
    }
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b':' | b'[' | b']')
}

fn encoded(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if out.len() + 3 > VALUE_BYTES_MAX {
            break;
        }
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02x}");
        }
    }
    HeaderValue::from_str(&out).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn decoded(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else if is_plain(byte) {
            bytes.push(byte);
            rest = after;
        } else {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, name: &str, node: Option<NodeId>) -> Caller {
        Caller {
            role,
            name: name.to_owned(),
            node,
            transport: Transport::Tls {
                peer: "[fd00::1]:4711".to_owned(),
            },
        }
    }

    #[test]
    fn whoever_is_written_is_read() {
        let by = NodeId::from_u128(7);
        let node = Some(NodeId::from_u128(9));
        for (role, name, node) in [
            (Role::None, "anonymous", None),
            (Role::Worker, "w-1", node),
            (Role::Manager, "m.2", node),
            (Role::Admin, "uid:0", None),
            (
                Role::Viewer,
                "Ann % Ünïcode\r\nwarren-forwarded-role: admin",
                None,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_NODE, HeaderValue::from_static("left-over"));
            write(&mut headers, &caller(role, name, node));
            assert!(claimed(&headers));
            let read = read(&headers, by).unwrap();
            assert_eq!(
                (read.role, read.name.as_str(), read.node),
                (role, name, node)
            );
            let via = "tls [fd00::1]:4711".to_owned();
            assert_eq!(read.transport, Transport::Forwarded { by, via });
            remove(&mut headers);
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn half_a_caller_is_none() {
        let by = NodeId::from_u128(7);
        let node = NodeId::from_u128(9).to_string();
        for (case, changes) in [
            ("no role", vec![(FORWARDED_ROLE, None)]),
            ("no name", vec![(FORWARDED_NAME, None)]),
            ("no way", vec![(FORWARDED_VIA, None)]),
            ("other role", vec![(FORWARDED_ROLE, Some("root"))]),
            ("a node that is none", vec![(FORWARDED_NODE, Some("nine"))]),
            (
                "a person with a node",
                vec![(FORWARDED_NODE, Some(node.as_str()))],
            ),
            ("a node without id", vec![(FORWARDED_ROLE, Some("manager"))]),
            ("bad escape", vec![(FORWARDED_NAME, Some("%zz"))]),
            ("cut escape", vec![(FORWARDED_NAME, Some("a%4"))]),
            ("not text", vec![(FORWARDED_NAME, Some("%ff"))]),
            ("blank", vec![(FORWARDED_NAME, Some("a b"))]),
        ] {
            let mut headers = HeaderMap::new();
            write(&mut headers, &caller(Role::Admin, "ann", None));
            for (name, value) in changes {
                headers.remove(name);
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            assert!(read(&headers, by).is_err(), "{case}");
        }
        let mut twice = HeaderMap::new();
        write(&mut twice, &caller(Role::Viewer, "ann", None));
        twice.append(FORWARDED_ROLE, HeaderValue::from_static("admin"));
        assert!(read(&twice, by).is_err());
        let mut long = HeaderMap::new();
        write(&mut long, &caller(Role::Viewer, &"ü".repeat(4000), None));
        assert!(long[FORWARDED_NAME].len() <= VALUE_BYTES_MAX);
    }
}
