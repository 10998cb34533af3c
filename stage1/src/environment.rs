//! An app's environment: the image's and the command line's, completed by the defaults of the App Container executor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Result, ensure};
use contract::image::Variable;

const DEFAULTS: [(&str, &str); 6] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("SHELL", "/bin/sh"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("HOME", "/root"),
    ("container", "fairing"),
];

/// The whole environment of app `name`: of a variable given twice the last value counts, at the first one's place.
///
/// # Errors
/// For a variable that execve could not carry.
pub fn complete(given: &[Variable], name: &str, terminal: bool) -> Result<Vec<(String, String)>> {
    let mut environment: Vec<(String, String)> = Vec::new();
    // An image may set a hundred thousand.
    let mut places: HashMap<&str, usize> = HashMap::new();
    for Variable { name, value } in given {
        ensure!(
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'),
            "environment variable {name:?} cannot be set: empty name, '=' in the name, or a NUL byte"
        );
        match places.entry(name) {
            Entry::Occupied(place) => environment[*place.get()].1.clone_from(value),
            Entry::Vacant(place) => {
                place.insert(environment.len());
                environment.push((name.clone(), value.clone()));
            }
        }
    }
    let term = terminal.then_some(("TERM", "xterm"));
    for (name, value) in DEFAULTS.into_iter().chain(term) {
        if environment.iter().all(|(known, _)| known != name) {
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    set(&mut environment, &[("AC_APP_NAME".into(), name.into())]);
    Ok(environment)
}

/// Sets variables of the executor's own, whatever the image says of them.
pub fn set(environment: &mut Vec<(String, String)>, own: &[(String, String)]) {
    environment.retain(|(known, _)| own.iter().all(|(name, _)| name != known));
    environment.extend_from_slice(own);
}

/// Where a bare command is looked for: the PATH that was given, else the working directory and the usual folders.
pub fn search_path(given: &[Variable], working_directory: &str) -> String {
    let path = given
        .iter()
        .rev()
        .find(|variable| variable.name == "PATH" && !variable.value.is_empty());
    path.map_or_else(
        || format!("{working_directory}:{}:/bin:/usr/bin", DEFAULTS[0].1),
        |path| path.value.clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> Variable {
        Variable {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn environment_given_twice_keeps_the_last_and_gets_defaults() {
        let given = [
            variable("A", "1"),
            variable("HOME", "/home/a"),
            variable("A", "2"),
            variable("AC_APP_NAME", "no"),
        ];
        let environment = complete(&given, "web", false).expect("a valid environment");
        let get = |name: &str| {
            environment
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, v)| v.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(get("A"), ["2"]);
        assert_eq!(get("HOME"), ["/home/a"]);
        assert_eq!(get("SHELL"), ["/bin/sh"]);
        assert_eq!(get("AC_APP_NAME"), ["web"]);
        assert!(get("TERM").is_empty());
    }

    #[test]
    fn environment_with_impossible_name_is_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
            assert!(complete(&[variable(name, value)], "a", false).is_err());
        }
    }

    #[test]
    fn search_path_without_path_begins_at_the_working_directory() {
        assert!(search_path(&[], "/srv").starts_with("/srv:"));
        assert_eq!(search_path(&[variable("PATH", "/x")], "/srv"), "/x");
    }
}
