//! Lists in manifests that other stage 0s write are often `null` where the schema says `[]`.

use serde::{Deserialize, Deserializer};

/// For `#[serde(deserialize_with)]`: `null` reads as the default value.
pub(crate) fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    input: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}
