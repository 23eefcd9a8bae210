//! Ids of rows, and timestamps. The only reader of the system clock.
//!
//! An id is a UUIDv7 in lower case. Text that is not a UUID becomes the nil id, which no row has. So a malformed id
//! gets the same response as a missing one, in a path, a query or a body.

use std::time::{SystemTime, UNIX_EPOCH};

use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde_json::Value;
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// Parses an id; the nil id, which no row has, if the text is not one.
            pub fn of(text: &str) -> Self {
                Self(canonical(text))
            }

            pub fn is_nil(self) -> bool {
                self.0.is_nil()
            }

            /// The least id that can be made at this time.
            pub fn first_of(at: Timestamp) -> Self {
                let milliseconds = u128::from(u64::try_from(at.0).unwrap_or_default() & 0xffff_ffff_ffff);
                Self(Uuid::from_u128(milliseconds << 80))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let bytes = value.as_blob()?;
                Uuid::from_slice(bytes).map(Self).map_err(|e| FromSqlError::Other(Box::new(e)))
            }
        }

        impl Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> std::borrow::Cow<'static, str> {
                "string_uuid".into()
            }

            fn schema_ref() -> MetaSchemaRef {
                MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "uuid")))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl ParseFromJSON for $name {
            fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                match value {
                    Some(Value::String(text)) => Ok(Self::of(&text)),
                    other => Err(ParseError::expected_type(other.unwrap_or_default())),
                }
            }
        }

        impl ParseFromParameter for $name {
            fn parse_from_parameter(text: &str) -> ParseResult<Self> {
                Ok(Self::of(text))
            }
        }

        impl ToJSON for $name {
            fn to_json(&self) -> Option<Value> {
                Some(Value::String(self.to_string()))
            }
        }
    )*};
}

id! {
    /// A member (`uid` on the wire).
    MemberId;
    /// An organization, which is a tenant.
    OrganizationId;
    RoleId;
    /// A role held by a member, from one source.
    AssignmentId;
    MappingId;
    GrantId;
    /// A session of a member.
    SessionId;
    /// A device that is remembered after a second factor.
    TrustedDeviceId;
    InvitationId;
    /// The public part of an API key.
    ApiKeyId;
    PluginId;
    /// A reservation of quota for an upload.
    ReservationId;
    JobId;
    /// Work in the background, in memory only.
    TaskId;
    /// One lease of a job by a worker.
    LeaseId;
    WebhookId;
}

/// The UUID, if the text is its canonical form; otherwise the nil UUID.
fn canonical(text: &str) -> Uuid {
    const LENGTH: usize = 36;
    if text.len() != LENGTH || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Uuid::nil();
    }
    Uuid::try_parse(text).unwrap_or(Uuid::nil())
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn now() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one reader of the clock")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0))
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_names_a_row() {
        let id = MemberId::new();
        assert_eq!(MemberId::of(&id.to_string()), id);
        for text in ["", "x", &id.to_string().to_uppercase(), &id.0.simple().to_string(), "{id}"] {
            assert!(MemberId::of(text).is_nil(), "{text}");
        }
    }
}
