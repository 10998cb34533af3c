//! Limits and permissions of an app, as isolators (contract section 3.4): memory and CPU are appended, so that of each
//! the last counts; the others replace the image's.

use anyhow::{Context, Result, bail};
use contract::image::Isolator;
use serde_json::{Value, json};

use crate::cli::AppFlags;

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
    if let Some(text) = &flags.seccomp {
        let (names, value) = seccomp(text).with_context(|| format!("read --seccomp {text:?}"))?;
        replace(isolators, &names, value);
    }
    Ok(())
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
