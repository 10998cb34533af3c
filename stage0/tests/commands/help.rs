//! What is made of the command line's own description.

use std::fs;

use crate::recorder::{Host, RECORD};

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    let host = Host::new(RECORD);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = host.stdout(&["completion", shell]);
        for word in ["run-prepared", "uuid-file-save"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    assert_ne!(
        host.output(&["completion", "no-shell"]).status.code(),
        Some(0)
    );
}

#[test]
fn every_command_has_a_page() {
    let host = Host::new(RECORD);
    let folder = host.path("man/man1");
    host.stdout(&["man", folder.to_str().expect("a name of ours")]);
    for (page, text) in [
        ("fairing.1", "Exit codes"),
        ("fairing-run.1", "stop\\-timeout"),
        ("fairing-image-import.1", "max\\-image\\-size"),
    ] {
        let page = fs::read_to_string(folder.join(page)).expect("a page");
        assert!(page.contains(text), "{text} not in {page}");
    }
}
