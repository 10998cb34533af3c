//! For `#[serde(with)]`: lists in manifests that other stage 0s write are often `null` where the schema says `[]`. `null` reads as
//! the default value.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) fn deserialize<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

pub(crate) fn serialize<S: Serializer>(
    value: &impl Serialize,
    output: S,
) -> Result<S::Ok, S::Error> {
    value.serialize(output)
}
