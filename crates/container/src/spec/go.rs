//! What Go's `encoding/json` accepts and serde by default does not: `null` and `""` for "not given".
//!
//! Engines marshal Go structs, so an absent list may come as nothing, as `[]` or as `null`.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's zero value.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads `null` and the empty text as `None`.
pub(super) fn or_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Text,
{
    Ok(Option::<T>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Whether Go's `omitempty` would leave the value out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Texts that Go's zero value leaves empty.
pub(super) trait Text {
    fn is_empty(&self) -> bool;
}

impl Text for String {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl Text for PathBuf {
    fn is_empty(&self) -> bool {
        self.as_os_str().is_empty()
    }
}
