//! What an app may do, by its isolators (contract section 3.4): what the guest enforces.

use anyhow::{Context, Result, bail, ensure};
use caps::Capability;
use contract::RunArguments;
use contract::capabilities::DEFAULT;
use contract::image::{App, isolators_called};
use guest_init::protocol::Powers;
use serde_json::Value;

use crate::{limits, system_calls};

const RETAIN: &str = "os/linux/capabilities-retain-set";
const REMOVE: &str = "os/linux/capabilities-remove-set";
const NO_NEW_PRIVILEGES: &str = "os/linux/no-new-privileges";
const OOM_SCORE_ADJ: &str = "os/linux/oom-score-adj";

/// Isolators of powers that are honoured.
const KNOWN: [&str; 6] = [
    RETAIN,
    REMOVE,
    system_calls::RETAIN,
    system_calls::REMOVE,
    NO_NEW_PRIVILEGES,
    OOM_SCORE_ADJ,
];

/// Whether an isolator of an app is honoured.
pub fn is_known(isolator: &str) -> bool {
    KNOWN.contains(&isolator) || limits::OF_APP.contains(&isolator)
}

/// What the processes of `app` may do.
///
/// # Errors
/// For a value that its isolator does not have.
pub fn powers(app: &App, arguments: &RunArguments) -> Result<Powers> {
    let capabilities = match arguments.disable_capabilities_restriction {
        true => None,
        false => Some(capabilities(app)?),
    };
    let no_new_privileges = match value(app, NO_NEW_PRIVILEGES)? {
        None => false,
        Some(Value::Bool(value)) => *value,
        Some(other) => bail!("isolator {NO_NEW_PRIVILEGES}: {other} is not true or false"),
    };
    let adjustment = integer(app, OOM_SCORE_ADJ, -1000, 1000)?.unwrap_or(0);
    Ok(Powers {
        capabilities: capabilities.map(|kept| kept.iter().map(Capability::to_string).collect()),
        no_new_privileges,
        seccomp: system_calls::filter(app, arguments)?,
        oom_score_adj: i32::try_from(adjustment)?,
    })
}

fn capabilities(app: &App) -> Result<Vec<Capability>> {
    let set_of = |name| -> Result<Vec<Capability>> {
        let sets = isolators_called(&app.isolators, name).map(set);
        let sets = sets.collect::<Result<Vec<_>>>();
        Ok(sets
            .with_context(|| format!("read isolator {name}"))?
            .concat())
    };
    // One that is there is not empty.
    let (retained, removed) = (set_of(RETAIN)?, set_of(REMOVE)?);
    ensure!(
        retained.is_empty() || removed.is_empty(),
        "isolators {RETAIN} and {REMOVE} exclude each other"
    );
    if !retained.is_empty() {
        return Ok(retained);
    }
    let kept = DEFAULT.into_iter();
    Ok(kept.filter(|known| !removed.contains(known)).collect())
}

/// The capabilities of a set.
fn set(value: &Value) -> Result<Vec<Capability>> {
    let capability = |name: &str| {
        let known = name.parse().ok();
        known.with_context(|| format!("no capability is called {name:?}"))
    };
    names(value)?.into_iter().map(capability).collect()
}

/// The names in a set, `{"set": ["CAP_KILL", ...]}`, of which there is one at least.
pub fn names(value: &Value) -> Result<Vec<&str>> {
    let names = value.get("set").and_then(Value::as_array);
    let names = names.context("it has no set")?;
    ensure!(!names.is_empty(), "its set is empty");
    let names: Option<_> = names.iter().map(Value::as_str).collect();
    names.context("a name in its set is not text")
}

/// The value of an isolator that may be there once.
fn value<'a>(app: &'a App, name: &'a str) -> Result<Option<&'a Value>> {
    let mut values = isolators_called(&app.isolators, name);
    let value = values.next();
    ensure!(values.next().is_none(), "isolator {name} is there twice");
    Ok(value)
}

/// The number, within bounds, of an isolator that may be there once.
pub fn integer(app: &App, name: &str, least: i64, most: i64) -> Result<Option<i64>> {
    let Some(value) = value(app, name)? else {
        return Ok(None);
    };
    let number = value
        .as_i64()
        .filter(|number| (least..=most).contains(number));
    number
        .map(Some)
        .with_context(|| format!("isolator {name}: {value} is not a number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::image::Isolator;
    use serde_json::json;

    fn app(isolators: &[(&str, Value)]) -> App {
        let isolators = isolators.iter().map(|(name, value)| Isolator {
            name: (*name).into(),
            value: value.clone(),
        });
        App {
            isolators: isolators.collect(),
            ..App::default()
        }
    }

    fn kept(isolators: &[(&str, Value)]) -> Result<Vec<String>> {
        let powers = powers(&app(isolators), &RunArguments::default())?;
        Ok(powers.capabilities.expect("a set"))
    }

    #[test]
    fn capabilities_are_the_default_less_what_is_removed_or_what_is_retained() {
        let set = |names: &[&str]| json!({ "set": names });
        assert_eq!(kept(&[]).expect("the default").len(), 14);
        let removed = kept(&[(REMOVE, set(&["CAP_KILL", "CAP_SYS_ADMIN"]))]).expect("a set");
        assert_eq!(removed.len(), 13);
        assert!(!removed.contains(&"CAP_KILL".to_owned()));
        let retained = [
            (RETAIN, set(&["CAP_SYS_ADMIN"])),
            (RETAIN, set(&["CAP_KILL"])),
        ];
        assert_eq!(
            kept(&retained).expect("a set"),
            ["CAP_SYS_ADMIN", "CAP_KILL"]
        );
        for wrong in [
            vec![(RETAIN, set(&[]))],
            vec![(RETAIN, json!({}))],
            vec![(REMOVE, set(&["CAP_NONE"]))],
            vec![(RETAIN, set(&["CAP_KILL"])), (REMOVE, set(&["CAP_KILL"]))],
        ] {
            assert!(kept(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn capabilities_are_all_where_nothing_is_restricted() {
        let arguments = RunArguments {
            disable_capabilities_restriction: true,
            ..RunArguments::default()
        };
        let powers = powers(&app(&[]), &arguments).expect("powers");
        assert_eq!(powers.capabilities, None);
    }

    #[test]
    fn numbers_out_of_range_or_given_twice_are_refused() {
        for wrong in [
            vec![(OOM_SCORE_ADJ, json!(1001))],
            vec![(OOM_SCORE_ADJ, json!("5"))],
            vec![(OOM_SCORE_ADJ, json!(1)), (OOM_SCORE_ADJ, json!(2))],
            vec![(NO_NEW_PRIVILEGES, json!("true"))],
        ] {
            assert!(powers(&app(&wrong), &RunArguments::default()).is_err());
        }
        let shares = app(&[("os/linux/cpu-shares", json!(1))]);
        assert!(limits::of_app(&shares, &[]).is_err());
    }
}
