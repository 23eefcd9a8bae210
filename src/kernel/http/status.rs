//! The wire type of a member's status.

use poem_openapi::Enum;

/// The status of a member
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum MemberStatus {
    Pending,
    Active,
    Suspended,
    Deleted,
}

impl MemberStatus {
    pub fn of(word: &str) -> Self {
        match word {
            "pending" => Self::Pending,
            "active" => Self::Active,
            "suspended" => Self::Suspended,
            _ => Self::Deleted,
        }
    }
}
