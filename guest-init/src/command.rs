//! Which file an app's command means, and what it is when it cannot be executed.
//!
//! Called by `launch` as the app's user, in its root and working directory. The candidates and the verdict are pure.

use std::fs::{self, File};
use std::io::Read;

use nix::errno::Errno;

use crate::fault::{CANNOT_EXECUTE, Fault, NOT_FOUND, OTHER};
use crate::interpreter::interpreter;

/// The paths that `command` may mean, in order.
pub fn candidates(command: &str, search_path: &str, working_directory: &str) -> Vec<String> {
    if command.contains('/') {
        return vec![join(working_directory, command)];
    }
    let along = |folder: &str| join(&join(working_directory, folder), command);
    search_path.split(':').map(along).collect()
}

/// `path` as seen from `directory`.
fn join(directory: &str, path: &str) -> String {
    match path {
        "" => directory.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{}/{relative}", directory.trim_end_matches('/')),
    }
}

/// Tries the candidates by `execute`, which returns only with an error; gives the reason why none of them runs.
pub fn run_first(
    command: &str,
    candidates: &[String],
    mut execute: impl FnMut(&str) -> Errno,
) -> Fault {
    let mut denied = None;
    for candidate in candidates {
        match execute(candidate) {
            Errno::ENOENT | Errno::ENOTDIR => match fs::metadata(candidate) {
                Ok(_) => return without_interpreter(candidate),
                Err(_) => continue,
            },
            Errno::EACCES => denied = denied.or(Some(candidate)),
            error => return refused(candidate, error),
        }
    }
    match denied {
        Some(candidate) => refused(candidate, Errno::EACCES),
        None => Fault::new(
            NOT_FOUND,
            format!("{command:?}: no such command in the image"),
        ),
    }
}

/// The file is there, so what is missing is what should run it.
fn without_interpreter(candidate: &str) -> Fault {
    let mut head = Vec::new();
    let read = File::open(candidate).and_then(|file| file.take(4096).read_to_end(&mut head));
    let missing = read.ok().and_then(|_| interpreter(&head));
    let missing = missing.unwrap_or_else(|| "unknown".into());
    Fault::new(
        NOT_FOUND,
        format!("{candidate:?} needs the interpreter {missing:?}, which is not in the image"),
    )
}

fn refused(candidate: &str, error: Errno) -> Fault {
    let code = match error {
        Errno::EACCES
        | Errno::ENOEXEC
        | Errno::EISDIR
        | Errno::EPERM
        | Errno::ELIBBAD
        | Errno::ETXTBSY => CANNOT_EXECUTE,
        _ => OTHER,
    };
    Fault::new(code, format!("execute {candidate:?}: {}", error.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_absolute_as_is() {
        assert_eq!(candidates("/bin/sh", "/usr/bin", "/srv"), ["/bin/sh"]);
    }

    #[test]
    fn candidates_with_slash_from_the_working_directory() {
        assert_eq!(candidates("bin/run", "/usr/bin", "/"), ["/bin/run"]);
        assert_eq!(candidates("./run", "", "/srv"), ["/srv/./run"]);
    }

    #[test]
    fn candidates_bare_along_the_search_path() {
        let found = candidates("sh", "/usr/bin:tools::/bin", "/srv");
        assert_eq!(
            found,
            ["/usr/bin/sh", "/srv/tools/sh", "/srv/sh", "/bin/sh"]
        );
    }

    fn code(errors: &[Errno]) -> u8 {
        let names: Vec<_> = (0..errors.len())
            .map(|number| format!("/nonexistent/{number}"))
            .collect();
        let mut errors = errors.iter();
        run_first("x", &names, |_| *errors.next().unwrap()).code
    }

    #[test]
    fn run_first_nothing_found_is_127() {
        assert_eq!(code(&[Errno::ENOENT, Errno::ENOTDIR]), 127);
    }

    #[test]
    fn run_first_denied_goes_on_and_is_126_at_last() {
        assert_eq!(code(&[Errno::EACCES, Errno::ENOENT]), 126);
    }

    #[test]
    fn run_first_no_program_is_126() {
        assert_eq!(code(&[Errno::ENOENT, Errno::ENOEXEC]), 126);
    }

    #[test]
    fn run_first_out_of_memory_is_254() {
        assert_eq!(code(&[Errno::ENOMEM]), 254);
    }

    #[test]
    fn run_first_missing_interpreter_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, "#!/opt/lua -x\n").unwrap();
        let fault = run_first("script", &[script.to_str().unwrap().to_owned()], |_| {
            Errno::ENOENT
        });
        assert_eq!(fault.code, 127);
        assert!(fault.reason.contains("\"/opt/lua\""), "{}", fault.reason);
    }
}
