//! Limits and permissions of an app, as isolators (contract section 3.4): memory and CPU are appended, so that of each
//! the last counts; the others replace the image's.

use anyhow::{Context, Result, bail};
use contract::capabilities::{DEFAULT, OTHERS};
use contract::image::Isolator;
use serde_json::{Map, Value, json};

use crate::cli::{AppFlags, PodFlags};

/// Adds the command line's isolators to those of the image.
///
/// # Errors
/// For a seccomp filter that cannot be read.
pub fn apply(isolators: &mut Vec<Isolator>, flags: &AppFlags) -> Result<()> {
    let quantity = |text: &String| json!({"default": false, "request": text, "limit": text});
    let appended = [
        ("resource/memory", flags.memory.as_ref()),
        ("resource/cpu", flags.cpu.as_ref()),
    ];
    for (name, value) in appended {
        isolators.extend(value.map(|text| isolator(name, quantity(text))));
    }
    if let Some(weight) = flags.cpu_shares {
        replace(isolators, &["os/linux/cpu-shares"], json!(weight));
    }
    if let Some(adjustment) = flags.oom_score_adj {
        replace(isolators, &["os/linux/oom-score-adj"], json!(adjustment));
    }
    let retain = "os/linux/capabilities-retain-set";
    let remove = "os/linux/capabilities-remove-set";
    if !flags.caps_retain.is_empty() {
        replace(
            isolators,
            &[retain, remove],
            json!({"set": flags.caps_retain}),
        );
    }
    if !flags.caps_remove.is_empty() {
        replace(
            isolators,
            &[remove, retain],
            json!({"set": flags.caps_remove}),
        );
    }
    if !(flags.cap_add.is_empty() && flags.cap_drop.is_empty()) {
        let kept = capabilities(flags)?;
        // A set that is retained cannot be empty.
        match kept.is_empty() {
            true => replace(isolators, &[remove, retain], json!({"set": DEFAULT})),
            false => replace(isolators, &[retain, remove], json!({"set": kept})),
        }
    }
    if let Some(text) = &flags.seccomp {
        let (names, value) = seccomp(text).with_context(|| format!("read --seccomp {text:?}"))?;
        replace(isolators, &names, value);
    }
    Ok(())
}

/// The isolators of a pod as a whole.
pub fn of_pod(flags: &PodFlags) -> Vec<Isolator> {
    let sysctls: Map<_, _> = flags
        .sysctl
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.clone())))
        .collect();
    let sysctls = (!sysctls.is_empty()).then(|| isolator("os/unix/sysctl", sysctls.into()));
    sysctls.into_iter().collect()
}

/// What of the default, or of what rkt's flags have left of it, is kept and added by podman's.
fn capabilities(flags: &AppFlags) -> Result<Vec<&'static str>> {
    let kept = match &flags.caps_retain[..] {
        [] => DEFAULT.to_vec(),
        retained => named(retained)?,
    };
    let (removed, dropped, added) = (
        named(&flags.caps_remove)?,
        named(&flags.cap_drop)?,
        named(&flags.cap_add)?,
    );
    let is_left = |name: &&str| !removed.contains(name) && !dropped.contains(name);
    let mut kept: Vec<_> = kept.into_iter().filter(is_left).collect();
    let new: Vec<_> = added
        .into_iter()
        .filter(|name| !kept.contains(name))
        .collect();
    kept.extend(new);
    Ok(kept)
}

/// Capabilities as podman's users name them: without `CAP_`, in any case, or all.
fn named(names: &[String]) -> Result<Vec<&'static str>> {
    let all = || DEFAULT.into_iter().chain(OTHERS);
    let mut found = Vec::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            found.extend(all());
            continue;
        }
        let known = all().find(|known| known.strip_prefix("CAP_") == Some(short));
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
        let kept = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            capabilities(&AppFlags {
                cap_add: list(add),
                cap_drop: list(drop),
                ..AppFlags::default()
            })
        };
        assert_eq!(kept(&["net_admin", "CAP_KILL"], &[])?.len(), 15);
        assert_eq!(kept(&["chown"], &["ALL"])?, ["CAP_CHOWN"]);
        assert!(kept(&[], &["all"])?.is_empty());
        assert_eq!(kept(&["ALL"], &[])?.len(), 41);
        assert!(kept(&["FLY"], &[]).is_err());
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
