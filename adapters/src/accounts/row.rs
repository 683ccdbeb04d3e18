//! An account as text, the same in both registers.

use kalends_core::id::UserId;
use serde::{Deserialize, Serialize};

use super::{Account, Change};

/// What stands in the register for one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Row {
    Kept(Account),
    Removed { purge: bool },
}

impl Row {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data becomes JSON")
    }

    /// Why a text cannot be read is not told: it may hold a sealed secret.
    pub(super) fn read(text: &str) -> Result<Row, String> {
        serde_json::from_str(text).map_err(|_| {
            "the register of accounts holds a row that this version cannot read; start the newer Kalends that wrote it"
                .to_owned()
        })
    }

    pub(super) fn change(self, user: UserId) -> Change {
        match self {
            Row::Kept(account) => Change::Kept(account),
            Row::Removed { purge } => Change::Removed { user, purge },
        }
    }
}

/// A number of 64 bits as hexadecimal text.
pub(super) mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in super::super) fn serialize<S: Serializer>(
        number: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:016x}"))
    }

    pub(in super::super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(|_| D::Error::custom("no hexadecimal number"))
    }
}
