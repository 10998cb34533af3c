//! Sorts the words of `run` and `prepare` by the app they belong to, as rkt does:
//!
//! ```text
//! run [pod and app flags] IMAGE [flags] [-- arguments [---]] IMAGE [flags] [-- arguments]
//! ```
//!
//! A flag that only apps have belongs to the image before it, or, in a pod of one app, to the image after it; what is
//! no app's flag belongs to the pod wherever it stands. The arguments of an app are never looked into.

use std::collections::HashMap;
use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser};

use super::{AppFlags, AppOnly, Cli};

/// One app of the command line.
#[derive(Clone, Debug, Default)]
pub struct AppWords {
    /// What names its image.
    pub image: OsString,
    /// Flags after the image; of the first app all its flags are parsed with the command's.
    pub flags: AppFlags,
    /// Words after `--`.
    pub arguments: Vec<String>,
}

/// A command line, sorted.
#[derive(Debug)]
struct Sorted {
    /// For the parser of the whole command line: everything but later apps' flags and all apps' arguments.
    words: Vec<OsString>,
    apps: Vec<(OsString, Vec<OsString>, Vec<String>)>,
}

/// Parses the command line; the apps are empty for commands that have none.
///
/// # Errors
/// The parser's own, as [`clap::Error`], also for help and version; and for words in places where they mean nothing.
pub fn split(argv: &[OsString]) -> Result<(Cli, Vec<AppWords>)> {
    // Made once: that of all commands takes longer than anything else that is done here.
    let parser = Cli::with_switches();
    let Some(start) = start_of_apps(&parser, argv) else {
        return Ok((parse_words(parser, argv)?, Vec::new()));
    };
    let sorted = sort(&parser, &argv[..start], &argv[start..])?;
    let cli = parse_words(parser, &sorted.words)?;
    let mut apps = Vec::new();
    for (index, (image, flags, arguments)) in sorted.apps.into_iter().enumerate() {
        let flags = match (&cli.command, index) {
            (super::Command::Run(run), 0) => run.app.clone(),
            (super::Command::Prepare(prepare), 0) => prepare.app.clone(),
            _ => AppOnly::try_parse_from(flags)?.flags,
        };
        apps.push(AppWords {
            image,
            flags,
            arguments,
        });
    }
    Ok((cli, apps))
}

fn parse_words(parser: clap::Command, words: &[OsString]) -> Result<Cli> {
    let matches = parser.try_get_matches_from(words)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// Index of the first word after `run` or `prepare`.
fn start_of_apps(parser: &clap::Command, argv: &[OsString]) -> Option<usize> {
    let table = Flags::of(parser.get_arguments());
    let mut index = 1;
    while let Some(word) = argv.get(index).and_then(|word| word.to_str()) {
        if word.starts_with('-') {
            index += 1 + usize::from(table.takes_next(word));
            continue;
        }
        let exact = parser.find_subcommand(word).map(|found| found.get_name());
        let mut matching = parser
            .get_subcommands()
            .filter(|command| command.get_name().starts_with(word));
        let only = match (matching.next(), matching.next()) {
            (Some(command), None) => Some(command.get_name()),
            _ => None,
        };
        return matches!(exact.or(only)?, "run" | "prepare").then_some(index + 1);
    }
    None
}

fn sort(parser: &clap::Command, command: &[OsString], words: &[OsString]) -> Result<Sorted> {
    let app_table = Flags::of(AppOnly::command().get_arguments());
    let run = parser.find_subcommand("run").into_iter();
    let own = run.flat_map(clap::Command::get_arguments);
    let table = Flags::of(parser.get_arguments().chain(own));
    let mut pod: Vec<OsString> = Vec::new();
    let mut before: Vec<OsString> = Vec::new();
    let mut apps: Vec<(OsString, Vec<OsString>, Vec<String>)> = Vec::new();
    let mut words = words.iter();
    let mut has_arguments = false;
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--") => {
                let Some((image, _, arguments)) = apps.last_mut() else {
                    bail!("an image is required before --");
                };
                if std::mem::replace(&mut has_arguments, true) {
                    bail!("{} has two sets of arguments", image.to_string_lossy());
                }
                for argument in words.by_ref().take_while(|word| *word != "---") {
                    let Some(text) = argument.to_str() else {
                        bail!("argument {argument:?} is not UTF-8, which a pod manifest needs");
                    };
                    arguments.push(text.to_owned());
                }
            }
            Some("---") => bail!("--- ends the arguments of an image, but there are none"),
            Some(flag) if flag.len() > 1 && flag.starts_with('-') => {
                let target = match apps.last_mut() {
                    _ if !app_table.has(flag) => &mut pod,
                    None => &mut before,
                    Some((_, flags, _)) => flags,
                };
                target.push(word.clone());
                if table.takes_next(flag) {
                    target.extend(words.next().cloned());
                }
            }
            _ => {
                has_arguments = false;
                apps.push((word.clone(), Vec::new(), Vec::new()));
            }
        }
    }
    if apps.len() > 1 && !before.is_empty() {
        bail!(
            "{} before the first of several images: put an app's flags after its image",
            before[0].to_string_lossy()
        );
    }
    let first = apps
        .first()
        .map_or_else(Vec::new, |(_, flags, _)| flags.clone());
    let images = apps.iter().map(|(image, _, _)| image.clone());
    let words = command
        .iter()
        .cloned()
        .chain(pod)
        .chain(before)
        .chain(first)
        .chain(images)
        .collect();
    Ok(Sorted { words, apps })
}

/// Which flags a command has, and which of them take the next word as value.
struct Flags {
    long: HashMap<String, bool>,
    short: HashMap<char, bool>,
}

impl Flags {
    fn of<'a>(arguments: impl Iterator<Item = &'a clap::Arg>) -> Self {
        let mut flags = Self {
            long: HashMap::new(),
            short: HashMap::new(),
        };
        for argument in arguments {
            let takes_next =
                argument.get_action().takes_values() && !argument.is_require_equals_set();
            for name in argument
                .get_long()
                .into_iter()
                .chain(argument.get_all_aliases().unwrap_or_default())
            {
                flags.long.insert(name.to_owned(), takes_next);
            }
            if let Some(name) = argument.get_short() {
                flags.short.insert(name, takes_next);
            }
        }
        flags
    }

    fn has(&self, word: &str) -> bool {
        match word.strip_prefix("--") {
            Some(long) => {
                let name = long.split('=').next().unwrap_or(long);
                self.long.contains_key(name)
            }
            None => word
                .chars()
                .nth(1)
                .is_some_and(|short| self.short.contains_key(&short)),
        }
    }

    /// Whether the value of the flag in `word` is the word after it.
    fn takes_next(&self, word: &str) -> bool {
        if let Some(long) = word.strip_prefix("--") {
            return !long.contains('=') && self.long.get(long) == Some(&true);
        }
        // In a cluster as `-ite`, only a flag at the very end has its value outside.
        let mut letters = word.chars().skip(1);
        while let Some(letter) = letters.next() {
            if self.short.get(&letter) == Some(&true) {
                return letters.next().is_none();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, StdinMode};

    fn parse(line: &str) -> Result<(Cli, Vec<AppWords>)> {
        let argv: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        split(&argv)
    }

    #[test]
    fn flags_of_one_app_may_stand_on_both_sides_of_its_image() -> Result<()> {
        let (cli, apps) = parse(
            "fairing --dir /d run --name=a -it --net=one --net=two:IP=10.1.2.3 IMAGE --user 5 --hostname h -- sh -c --name=b",
        )?;
        let Command::Run(run) = cli.command else {
            panic!("not run");
        };
        assert_eq!(run.start.net, ["one", "two:IP=10.1.2.3"]);
        assert_eq!(run.start.hostname.as_deref(), Some("h"));
        assert_eq!(apps.len(), 1);
        assert_eq!(apps[0].flags.name.as_deref(), Some("a"));
        assert_eq!(apps[0].flags.user.as_deref(), Some("5"));
        assert_eq!(apps[0].flags.stdin, Some(StdinMode::Stream));
        assert_eq!(apps[0].flags.tty, Some(true));
        assert_eq!(apps[0].arguments, ["sh", "-c", "--name=b"]);
        Ok(())
    }

    #[test]
    fn flags_of_several_apps_follow_their_images() -> Result<()> {
        let (_, apps) = parse(
            "fairing run --net=none A --name=x -- one -- two --- B --name=y --debug C -- ---",
        )?;
        let names: Vec<_> = apps.iter().map(|app| app.flags.name.as_deref()).collect();
        assert_eq!(names, [Some("x"), Some("y"), None]);
        assert_eq!(apps[0].arguments, ["one", "--", "two"]);
        assert!(apps[1].arguments.is_empty() && apps[2].arguments.is_empty());
        Ok(())
    }

    #[test]
    fn value_in_the_next_word_is_no_image() -> Result<()> {
        let (_, apps) = parse("fairing run -e A=b --memory 512Mi -u 5 IMAGE")?;
        assert_eq!(apps.len(), 1);
        assert_eq!(apps[0].flags.environment[0].value, "b");
        assert_eq!(apps[0].flags.memory.as_deref(), Some("512Mi"));
        Ok(())
    }

    #[test]
    fn command_by_unique_prefix_is_found() -> Result<()> {
        let (cli, apps) = parse("fairing prep IMAGE -- x")?;
        assert!(matches!(cli.command, Command::Prepare(_)));
        assert_eq!(apps[0].arguments, ["x"]);
        Ok(())
    }

    #[test]
    fn switch_may_be_given_a_value_as_in_rkt() -> Result<()> {
        for (value, expected) in [("", true), ("=true", true), ("=false", false)] {
            let (cli, _) = parse(&format!(
                "fairing --debug{value} run --interactive{value} --no-overlay{value} IMAGE"
            ))?;
            let Command::Run(run) = cli.command else {
                panic!("not run");
            };
            assert_eq!(cli.global.debug, expected);
            assert_eq!(run.start.interactive, expected);
            assert_eq!(run.pod.no_overlay, expected);
        }
        assert!(parse("fairing list --full=maybe").is_err());
        Ok(())
    }

    #[test]
    fn words_without_meaning_are_refused() {
        for line in [
            "fairing run",
            "fairing run -- x",
            "fairing run A --- B",
            "fairing run --name=a A B",
            "fairing run A -- x --- -- y",
            "fairing run --no-such-flag A",
            "fairing run A --no-such-flag",
            "fairing ru A",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
