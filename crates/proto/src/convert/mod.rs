//! Conversions between messages and types, both ways.
//!
//! Writing never fails. Reading fails with [`ConvertError`], which names the field; it checks what the
//! type needs (ids, enumerations, number ranges), not what validation checks (names, limits).

mod api_ingress;
mod api_objects;
mod api_service;
mod api_spec;
mod cluster;
mod container;
mod node;
mod object;
mod service;
mod spec;

pub use api_ingress::{ingress_parts, tls_certificate_to_api};
pub use api_objects::{
    ContainerView, NodeView, availability_from_text, availability_text, container_to_api,
    event_from_api, event_to_api, node_to_api, secret_to_api, volume_to_api,
};
pub use api_service::{
    ServiceView, service_to_api, spec_from_create, spec_from_image_update, spec_from_update,
};
pub use api_spec::{restart_condition_from_text, strategy_from_text};

use warren_types::{Duration, Id128, Timestamp};

/// A message that is not a value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct ConvertError {
    /// Path of the field, such as `container.mounts[2].kind`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ConvertError {
    /// An error about one field.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The same error seen from the message that holds this one in `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.field = format!("{field}.{}", self.field);
        self
    }
}

/// An enumeration with a number on the wire.
pub(crate) trait WireEnum: Sized {
    fn number(self) -> i32;
    fn read(number: i32, field: &str) -> Result<Self, ConvertError>;
}

macro_rules! wire_enum {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl crate::convert::WireEnum for $name {
            fn number(self) -> i32 {
                match self {
                    $(Self::$variant => crate::store::$name::$variant as i32,)+
                }
            }
            fn read(number: i32, field: &str) -> Result<Self, crate::ConvertError> {
                match crate::store::$name::try_from(number) {
                    $(Ok(crate::store::$name::$variant) => Ok(Self::$variant),)+
                    _ => Err(crate::ConvertError::new(
                        field,
                        format!("{number} is no known {}", stringify!($name)),
                    )),
                }
            }
        }
    };
}
pub(crate) use wire_enum;

/// Id as 16 bytes.
pub(crate) fn id_bytes(id: Id128) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// Id from 16 bytes.
pub(crate) fn id_from(bytes: &[u8], field: &str) -> Result<Id128, ConvertError> {
    <[u8; 16]>::try_from(bytes)
        .map(|b| Id128(u128::from_be_bytes(b)))
        .map_err(|_| {
            ConvertError::new(
                field,
                format!("an id has 16 bytes, this has {}", bytes.len()),
            )
        })
}

/// A message field that must be there.
pub(crate) fn required<T>(value: Option<T>, field: &str) -> Result<T, ConvertError> {
    value.ok_or_else(|| ConvertError::new(field, "missing"))
}

/// A port number.
pub(crate) fn port(number: u32, field: &str) -> Result<u16, ConvertError> {
    u16::try_from(number).map_err(|_| ConvertError::new(field, format!("{number} is above 65535")))
}

/// Converts a message field that must be there.
pub(crate) fn nested<M, T>(value: Option<M>, field: &str) -> Result<T, ConvertError>
where
    T: TryFrom<M, Error = ConvertError>,
{
    T::try_from(required(value, field)?).map_err(|e| e.within(field))
}

/// Converts a message field that may be absent.
pub(crate) fn optional<M, T>(value: Option<M>, field: &str) -> Result<Option<T>, ConvertError>
where
    T: TryFrom<M, Error = ConvertError>,
{
    value
        .map(T::try_from)
        .transpose()
        .map_err(|e| e.within(field))
}

/// Converts a repeated field.
pub(crate) fn list<M, T>(values: Vec<M>, field: &str) -> Result<Vec<T>, ConvertError>
where
    T: TryFrom<M, Error = ConvertError>,
{
    values
        .into_iter()
        .enumerate()
        .map(|(at, v)| T::try_from(v).map_err(|e| e.within(&format!("{field}[{at}]"))))
        .collect()
}

/// A moment as the standard protobuf timestamp.
#[must_use]
pub fn timestamp_to_api(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.0 % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// A moment from the standard protobuf timestamp; before 1970 counts as 1970, and parts of a
/// millisecond are dropped.
#[must_use]
pub fn timestamp_from_api(time: prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let millis = u64::try_from(time.nanos.max(0) / 1_000_000).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1000).saturating_add(millis))
}

pub(crate) fn millis(span: Option<Duration>) -> Option<u64> {
    span.map(|s| s.0)
}

pub(crate) fn times(time: Option<u64>) -> Option<Timestamp> {
    time.map(Timestamp)
}
