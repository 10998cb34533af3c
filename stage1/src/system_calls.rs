//! Filters of system calls that apps ask for by isolators (contract section 3.4): from names to classic BPF, which the
//! guest puts on the app.
//!
//! An app that asks for none has none: what keeps it from the host is its machine, whose kernel it shares with nobody but
//! the apps of its pod.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use contract::RunArguments;
use contract::image::App;
use nix::errno::Errno;
use seccompiler::{TargetArch, compile_from_json};
use serde_json::{Value, json};

use crate::isolators;

mod sets;

pub const RETAIN: &str = "os/linux/seccomp-retain-set";
pub const REMOVE: &str = "os/linux/seccomp-remove-set";

/// In a set that is retained: no filter.
const ALL: &str = "@appc.io/all";

/// In a set that is removed: the default whitelist is retained instead.
const EMPTY: &str = "@appc.io/empty";

/// The filter that `app` asks for, as [`guest_init::protocol::Powers::seccomp`] has it.
///
/// # Errors
/// For sets and system calls that there are not, and an isolator that is there twice.
pub fn filter(app: &App, arguments: &RunArguments) -> Result<Vec<u64>> {
    let mut isolators = app
        .isolators
        .iter()
        .filter(|isolator| matches!(&*isolator.name, RETAIN | REMOVE));
    let Some(isolator) = isolators.next() else {
        return Ok(Vec::new());
    };
    ensure!(
        isolators.next().is_none(),
        "isolators {RETAIN} and {REMOVE}: only one of them, once"
    );
    if arguments.disable_seccomp {
        return Ok(Vec::new());
    }
    compile(&isolator.value, isolator.name == RETAIN)
        .with_context(|| format!("read isolator {}", isolator.name))
}

fn compile(value: &Value, retain: bool) -> Result<Vec<u64>> {
    let names = isolators::names(value)?;
    let (names, retain) = match retain {
        true if names.contains(&ALL) => return Ok(Vec::new()),
        false if names.contains(&EMPTY) => (vec![sets::DEFAULT], true),
        retain => (names, retain),
    };
    let mut calls = BTreeSet::new();
    for name in names {
        if !name.starts_with('@') {
            calls.insert(name);
            continue;
        }
        let set = sets::find(name);
        let set = set.with_context(|| format!("there is no set {name:?} of system calls"))?;
        for call in set {
            calls.insert(call);
        }
    }
    program(&calls, retain, &denial(value)?)
}

/// What becomes of a call that is not allowed: the error that was asked for, or the process's end by SIGSYS.
fn denial(value: &Value) -> Result<Value> {
    match value.get("errno") {
        None | Some(Value::Null) => Ok(json!("kill_process")),
        Some(Value::String(name)) if name.is_empty() => Ok(json!("kill_process")),
        Some(Value::String(name)) => {
            let mut numbers = 1..=133;
            let number = numbers.find(|number| format!("{:?}", Errno::from_raw(*number)) == *name);
            let number = number.with_context(|| format!("there is no errno {name:?}"))?;
            Ok(json!({ "errno": number }))
        }
        Some(other) => bail!("errno {other} is not text"),
    }
}

fn program(calls: &BTreeSet<&str>, retain: bool, denial: &Value) -> Result<Vec<u64>> {
    let allow = json!("allow");
    let (listed, other) = match retain {
        true => (&allow, denial),
        false => (denial, &allow),
    };
    let filter: Vec<_> = calls
        .iter()
        .map(|call| json!({ "syscall": call }))
        .collect();
    let filter =
        json!({"app": {"mismatch_action": other, "match_action": listed, "filter": filter}});
    let mut programs = compile_from_json(filter.to_string().as_bytes(), TargetArch::x86_64)?;
    let program = programs.remove("app").context("compile the filter")?;
    let packed = program.iter().map(|instruction| {
        u64::from(instruction.code) << 48
            | u64::from(instruction.jt) << 40
            | u64::from(instruction.jf) << 32
            | u64::from(instruction.k)
    });
    Ok(packed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::image::Isolator;

    fn filter_of(isolators: &[(&str, Value)]) -> Result<Vec<u64>> {
        let isolators = isolators.iter().map(|(name, value)| Isolator {
            name: (*name).into(),
            value: value.clone(),
        });
        let app = App {
            isolators: isolators.collect(),
            ..App::default()
        };
        filter(&app, &RunArguments::default())
    }

    #[test]
    fn every_named_set_compiles_both_ways() {
        for name in sets::names() {
            for isolator in [RETAIN, REMOVE] {
                let program = filter_of(&[(isolator, json!({ "set": [name] }))]).expect(name);
                assert!((4..4096).contains(&program.len()), "{name}");
            }
        }
    }

    #[test]
    fn wildcards_are_no_filter_and_the_default() {
        let all = filter_of(&[(RETAIN, json!({ "set": [ALL, "read"] }))]);
        assert!(all.expect("no filter").is_empty());
        let set = |isolator, name| filter_of(&[(isolator, json!({ "set": [name] }))]);
        let default = set(RETAIN, sets::DEFAULT).expect("a filter");
        assert_eq!(set(REMOVE, EMPTY).expect("a filter"), default);
    }

    #[test]
    fn what_there_is_not_is_refused() {
        for value in [
            json!({}),
            json!({"set": []}),
            json!({"set": ["no_such_call"]}),
            json!({"set": ["@no/such-set"]}),
            json!({"set": [7]}),
            json!({"set": ["read"], "errno": "ENONE"}),
        ] {
            assert!(filter_of(&[(REMOVE, value.clone())]).is_err(), "{value}");
        }
        let set = || json!({"set": ["read"]});
        assert!(filter_of(&[(REMOVE, set()), (RETAIN, set())]).is_err());
    }

    #[test]
    fn errno_is_what_a_denied_call_gives() {
        let program = filter_of(&[(REMOVE, json!({"set": ["mount"], "errno": "EXDEV"}))]);
        // SECCOMP_RET_ERRNO and the number.
        let denied = program
            .expect("a filter")
            .iter()
            .any(|one| one & 0xffff_ffff == 0x0005_0012);
        assert!(denied);
    }
}
