//! Limits and permissions of an app, as isolators (contract section 3.4): memory and CPU are appended, so that of each
//! the last counts; the others replace the image's.

use anyhow::{Context, Result, bail};
use caps::Capability;
use contract::capabilities::DEFAULT;
use contract::image::{Isolator, isolators_called};
use serde_json::{Map, Value, json};

use crate::cli::{AppFlags, PodFlags, SandboxFlags};

const RETAIN: &str = "os/linux/capabilities-retain-set";
const REMOVE: &str = "os/linux/capabilities-remove-set";

/// Adds the command line's isolators to those of the image.
///
/// # Errors
/// For a seccomp filter that cannot be read.
pub fn apply(isolators: &mut Vec<Isolator>, flags: &AppFlags) -> Result<()> {
    isolators.extend(limit("resource/memory", flags.memory.as_ref(), None));
    isolators.extend(limit("resource/cpu", flags.cpu.as_ref(), None));
    if let Some(weight) = flags.cpu_shares {
        replace(isolators, &["os/linux/cpu-shares"], json!(weight));
    }
    if let Some(adjustment) = flags.oom_score_adj {
        replace(isolators, &["os/linux/oom-score-adj"], json!(adjustment));
    }
    if !flags.caps_retain.is_empty() {
        replace(
            isolators,
            &[RETAIN, REMOVE],
            json!({"set": flags.caps_retain}),
        );
    }
    if !flags.caps_remove.is_empty() {
        replace(
            isolators,
            &[REMOVE, RETAIN],
            json!({"set": flags.caps_remove}),
        );
    }
    if !(flags.cap_add.is_empty() && flags.cap_drop.is_empty()) {
        let kept = capabilities(isolators, flags)?;
        // A set that is retained cannot be empty.
        match kept.is_empty() {
            true => replace(isolators, &[REMOVE, RETAIN], json!({"set": DEFAULT})),
            false => replace(isolators, &[RETAIN, REMOVE], json!({"set": kept})),
        }
    }
    if let Some(text) = &flags.seccomp {
        let (names, value) = seccomp(text).with_context(|| format!("read --seccomp {text:?}"))?;
        replace(isolators, &names, value);
    }
    Ok(())
}

/// The isolators of a pod as a whole.
pub fn of_pod(flags: &PodFlags, sandbox: Option<&SandboxFlags>) -> Vec<Isolator> {
    let sysctls: Map<_, _> = flags
        .sysctl
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.clone())))
        .collect();
    let sysctls = (!sysctls.is_empty()).then(|| isolator("os/unix/sysctl", sysctls.into()));
    let limits = sandbox.into_iter().flat_map(|flags| {
        let (memory, cpu) = (flags.memory.as_ref(), flags.cpu.as_ref());
        [
            limit("resource/memory", memory, flags.max_memory.as_ref()),
            limit("resource/cpu", cpu, flags.max_cpu.as_ref()),
        ]
    });
    sysctls.into_iter().chain(limits.flatten()).collect()
}

/// A limit of a resource; of a pod that grows, what it begins with and the `most`.
fn limit(name: &str, begins: Option<&String>, most: Option<&String>) -> Option<Isolator> {
    let begins = begins?;
    let value = json!({"default": false, "request": begins, "limit": most.unwrap_or(begins)});
    Some(isolator(name, value))
}

/// What podman's flags make of what an app has by its other isolators: ALL is added before anything is dropped, and dropped
/// before anything is added.
fn capabilities(isolators: &[Isolator], flags: &AppFlags) -> Result<Vec<Capability>> {
    let (dropped, added) = (named(&flags.cap_drop)?, named(&flags.cap_add)?);
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    if all(&flags.cap_add) {
        let kept = added.into_iter();
        return Ok(kept.filter(|name| !dropped.contains(name)).collect());
    }
    let both = added.iter().find(|name| dropped.contains(name));
    if let Some(both) = both.filter(|_| !all(&flags.cap_drop)) {
        bail!("{both} is both added and dropped");
    }
    let set_of = |name: &str| -> Result<Option<Vec<Capability>>> {
        let mut sets = isolators_called(isolators, name).peekable();
        if sets.peek().is_none() {
            return Ok(None);
        }
        let names = sets.filter_map(|set| set.get("set")?.as_array()).flatten();
        let names: Vec<_> = names.filter_map(Value::as_str).map(str::to_owned).collect();
        named(&names).map(Some)
    };
    let base = set_of(RETAIN)?.unwrap_or_else(|| DEFAULT.to_vec());
    let removed = set_of(REMOVE)?.unwrap_or_default();
    let is_left = |name: &Capability| !removed.contains(name) && !dropped.contains(name);
    let mut kept: Vec<_> = base.into_iter().filter(is_left).collect();
    let new: Vec<_> = added
        .into_iter()
        .filter(|name| !kept.contains(name))
        .collect();
    kept.extend(new);
    Ok(kept)
}

/// Capabilities as podman's users name them: without `CAP_`, in any case, or all.
fn named(names: &[String]) -> Result<Vec<Capability>> {
    let mut found = Vec::new();
    for name in names {
        let canonical = caps::to_canonical(name);
        if canonical == "CAP_ALL" {
            let mut all = Vec::from_iter(caps::all());
            all.sort_by_key(Capability::index);
            found.extend(all);
            continue;
        }
        let known = canonical.parse().ok();
        found.push(known.with_context(|| format!("there is no capability {name:?}"))?);
    }
    Ok(found)
}

fn isolator(name: &str, value: Value) -> Isolator {
    Isolator {
        name: name.to_owned(),
        value,
    }
}

/// Sets the first of `names` and takes away the others.
fn replace(isolators: &mut Vec<Isolator>, names: &[&str], value: Value) {
    isolators.retain(|set| !names.contains(&set.name.as_str()));
    isolators.push(isolator(names[0], value));
}

/// `mode=retain|remove[,errno=E],CALL,...`: the isolator to set and the one it displaces, and the value.
fn seccomp(text: &str) -> Result<([&'static str; 2], Value)> {
    let (mut mode, mut errno, mut calls) = (None, None, Vec::new());
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("mode", value)) => mode = Some(value),
            Some(("errno", value)) => errno = Some(value),
            Some((name, _)) => bail!("unknown key {name:?}"),
            None if part.is_empty() => bail!("an empty name of a system call"),
            None => calls.push(part),
        }
    }
    let (retain, remove) = ("os/linux/seccomp-retain-set", "os/linux/seccomp-remove-set");
    let names = match mode {
        Some("retain") => [retain, remove],
        Some("remove") => [remove, retain],
        _ => bail!("it needs mode=retain or mode=remove"),
    };
    if calls.is_empty() {
        bail!("it names no system call");
    }
    let mut value = json!({"set": calls});
    if let Some(errno) = errno {
        value["errno"] = json!(errno);
    }
    Ok((names, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_appended_and_permissions_replaced() -> Result<()> {
        let mut isolators = vec![
            isolator("resource/memory", json!({"limit": "1G"})),
            isolator(
                "os/linux/capabilities-retain-set",
                json!({"set": ["CAP_KILL"]}),
            ),
        ];
        let flags = AppFlags {
            memory: Some("2G".into()),
            caps_remove: vec!["CAP_MKNOD".into()],
            seccomp: Some("mode=retain,errno=EPERM,read,write".into()),
            ..AppFlags::default()
        };
        apply(&mut isolators, &flags)?;
        let names: Vec<_> = isolators.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "resource/memory",
                "resource/memory",
                "os/linux/capabilities-remove-set",
                "os/linux/seccomp-retain-set"
            ]
        );
        assert_eq!(isolators[1].value["limit"], "2G");
        assert_eq!(
            isolators[3].value,
            json!({"set": ["read", "write"], "errno": "EPERM"})
        );
        Ok(())
    }

    #[test]
    fn capabilities_are_added_and_dropped_by_any_spelling() -> Result<()> {
        let kept_of = |of_image: &[Isolator], add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let flags = AppFlags {
                cap_add: list(add),
                cap_drop: list(drop),
                ..AppFlags::default()
            };
            capabilities(of_image, &flags)
        };
        let kept = |add: &[&str], drop: &[&str]| kept_of(&[], add, drop);
        assert_eq!(kept(&["net_admin", "CAP_KILL"], &[])?.len(), 15);
        assert_eq!(kept(&["chown"], &["ALL"])?, [Capability::CAP_CHOWN]);
        assert!(kept(&[], &["all"])?.is_empty());
        assert_eq!(kept(&["ALL"], &[])?.len(), 41);
        assert_eq!(kept(&["ALL"], &["SYS_ADMIN"])?.len(), 40);
        assert!(kept(&["FLY"], &[]).is_err());
        assert!(kept(&["CHOWN"], &["CHOWN"]).is_err());
        let retained = [isolator(RETAIN, json!({"set": ["CAP_KILL", "CAP_CHOWN"]}))];
        let kept_of_image = kept_of(&retained, &[], &["CHOWN"])?;
        assert_eq!(kept_of_image, [Capability::CAP_KILL]);
        let removed = [isolator(REMOVE, json!({"set": ["CAP_KILL"]}))];
        assert_eq!(kept_of(&removed, &[], &["CHOWN"])?.len(), 12);
        Ok(())
    }

    #[test]
    fn seccomp_malformed_is_refused() {
        for text in [
            "",
            "read",
            "mode=keep,read",
            "mode=retain",
            "mode=retain,x=1,read",
        ] {
            assert!(seccomp(text).is_err(), "{text}");
        }
    }
}
