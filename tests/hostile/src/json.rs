//! Faults in a JSON document.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

/// One fault; an index counts the values of the document, itself and those inside others, modulo how many there are.
#[derive(Clone, Debug)]
pub enum JsonFault {
    /// A value is another.
    Replace(Index, Value),
    /// A value is gone from its list or object.
    Remove(Index),
    /// A value is there twice: in a list, or under a second name.
    Double(Index),
    /// A value lies under another name.
    Rename(Index, String),
}

/// Up to `most` faults; none at all now and then.
pub fn json_faults(most: usize) -> impl Strategy<Value = Vec<JsonFault>> {
    let at = any::<Index>;
    let fault = prop_oneof![
        6 => (at(), odd()).prop_map(|(at, value)| JsonFault::Replace(at, value)),
        2 => at().prop_map(JsonFault::Remove),
        1 => at().prop_map(JsonFault::Double),
        1 => (at(), "\\PC{0,6}").prop_map(|(at, name)| JsonFault::Rename(at, name)),
    ];
    prop::collection::vec(fault, 0..=most)
}

/// A value on the edge of some type, or of none.
fn odd() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(65_536)),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(1.5)),
        Just(json!(1e300)),
        any::<i64>().prop_map(Value::from),
    ];
    let text = prop_oneof![
        Just(String::new()),
        Just("\0".to_owned()),
        Just("..".to_owned()),
        Just("../../x".to_owned()),
        Just("/".to_owned()),
        Just("x".repeat(5000)),
        Just("99999999999999999999".to_owned()),
        "\\PC{0,20}",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text.prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just((0..200).fold(json!(1), |inner, _| json!([inner]))),
    ]
}

/// Puts `faults` into `document`, one after the other.
pub fn damage_json(document: &mut Value, faults: &[JsonFault]) {
    for fault in faults {
        let paths = paths(document);
        let path = |at: &Index| paths[at.index(paths.len())].clone();
        match fault {
            JsonFault::Replace(at, value) => {
                if let Some(place) = document.pointer_mut(&path(at)) {
                    *place = value.clone();
                }
            }
            JsonFault::Remove(at) => drop(remove(document, &path(at))),
            JsonFault::Double(at) => double(document, &path(at), "again"),
            JsonFault::Rename(at, name) => {
                double(document, &path(at), name);
                remove(document, &path(at));
            }
        }
    }
}

/// A JSON pointer to each value of `document`, the document itself first.
fn paths(document: &Value) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        match document.pointer(&path) {
            Some(Value::Array(list)) => {
                paths.extend((0..list.len()).map(|index| format!("{path}/{index}")));
            }
            Some(Value::Object(object)) => paths.extend(
                object
                    .keys()
                    .map(|key| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))),
            ),
            _ => {}
        }
        next += 1;
    }
    paths
}

/// Object or list around the value at `path`, and the value's name or index in it.
fn around<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (outer, name) = path.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    Some((document.pointer_mut(outer)?, name))
}

fn remove(document: &mut Value, path: &str) -> Option<Value> {
    match around(document, path)? {
        (Value::Object(object), name) => object.remove(&name),
        (Value::Array(list), index) => {
            let index = index.parse().ok().filter(|index| *index < list.len())?;
            Some(list.remove(index))
        }
        _ => None,
    }
}

fn double(document: &mut Value, path: &str, name: &str) {
    let Some(value) = document.pointer(path).cloned() else {
        return;
    };
    match around(document, path) {
        Some((Value::Object(object), _)) => drop(Map::insert(object, name.to_owned(), value)),
        Some((Value::Array(list), _)) => list.push(value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_of_each_kind_does_what_it_says() {
        let document = json!({"a/b": [1, 2], "c": {"d~": 3}});
        let places = paths(&document);
        assert_eq!(places, ["", "/a~1b", "/c", "/a~1b/0", "/a~1b/1", "/c/d~0"]);
        let mut changed = document.clone();
        remove(&mut changed, "/a~1b/0");
        double(&mut changed, "/c/d~0", "again");
        remove(&mut changed, "/c/d~0");
        assert_eq!(changed, json!({"a/b": [2], "c": {"again": 3}}));
    }

    proptest! {
        #[test]
        fn damage_of_any_document_leaves_a_document(faults in json_faults(6)) {
            let document = json!({"a": [1, {"b": null}], "c": "d"});
            let mut damaged = document.clone();
            damage_json(&mut damaged, &faults);
            prop_assert!(!faults.is_empty() || damaged == document);
            prop_assert!(!paths(&damaged).is_empty());
        }
    }
}
