//! `fairing trust`: keys that may sign App Container images.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use discovery::{Access, Client, Patience};
use trust::{Added, Certificate, Keys, Scope};

use crate::acis::{self, discover_keys, read_key};
use crate::settings::Settings;

/// Trusts keys that sign App Container images
#[derive(Debug, Args)]
#[command(
    after_help = "Without KEY, the keys are those that the web page of the prefix names. Keys are kept in trustedkeys/prefix.d and \
    trustedkeys/root.d of --local-config, without root of --user-config, as rkt keeps them; an empty file there takes back what the \
    distribution trusts.\n\nExamples:\n  fairing trust --prefix=example.com/app\n  fairing trust --root ./key.asc"
)]
pub struct Trust {
    /// Files or URLs of public keys
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
    /// Trust them for images of this name and those below it
    #[arg(long, value_name = "NAME", required_unless_present = "root")]
    pub prefix: Option<String>,
    /// Trust them for every image
    #[arg(long, conflicts_with = "prefix", requires = "keys")]
    pub root: bool,
    /// Do not ask whether the fingerprints are right
    #[arg(long)]
    pub skip_fingerprint_review: bool,
    /// Fetch pages and keys without TLS, too
    #[arg(long)]
    pub insecure_allow_http: bool,
}

impl Trust {
    /// Adds the keys that are accepted.
    ///
    /// # Errors
    /// If one cannot be had or kept.
    pub fn run(&self, settings: &Settings) -> Result<i32> {
        let access = Access {
            http: self.insecure_allow_http,
            any_certificate: settings.fetches_insecurely("tls"),
        };
        let client = Client::new(access, Patience::default())?;
        let scope = match &self.prefix {
            Some(prefix) => Scope::Prefix(prefix.clone()),
            None => Scope::Root,
        };
        let found = match (&self.prefix, self.keys.as_slice()) {
            (Some(prefix), []) => discover_keys(&client, &prefix.parse()?)?,
            (_, keys) => keys
                .iter()
                .map(|key| Ok((key.clone(), read_key(&client, key)?)))
                .collect::<Result<_>>()?,
        };
        let into = acis::own_folder(settings)?;
        let mut code = 0;
        for (from, certificate) in found
            .iter()
            .flat_map(|(from, keys)| keys.iter().map(move |key| (from, key)))
        {
            self.show(from, certificate);
            if !self.skip_fingerprint_review && !is_accepted()? {
                crate::note(&format!("not trusting {from}"));
                code = crate::FAILED;
                continue;
            }
            let Added { path, known } = Keys::add(&into, &scope, certificate)?;
            let how = if known {
                "trusted already"
            } else {
                "trusted from now on"
            };
            crate::note(&format!("{how}: {}", path.display()));
        }
        Ok(code)
    }

    fn show(&self, from: &str, certificate: &Certificate) {
        let prefix = self.prefix.as_deref().unwrap_or("every image");
        crate::note(&format!("key {from} for {prefix}"));
        crate::note(&format!(
            "fingerprint {}",
            spaced(&certificate.fingerprint())
        ));
        for user in certificate.users() {
            crate::note(&format!("  {user}"));
        }
    }
}

/// As people compare them: in fours, upper case.
fn spaced(fingerprint: &str) -> String {
    let upper = fingerprint.to_uppercase();
    let fours: Vec<_> = upper
        .as_bytes()
        .chunks(4)
        .map(|four| String::from_utf8_lossy(four).into_owned())
        .collect();
    fours.join(" ")
}

fn is_accepted() -> Result<bool> {
    let mut lines = std::io::stdin().lock().lines();
    loop {
        write!(std::io::stderr(), "Is this the right key (yes/no)? ").context("ask about a key")?;
        let Some(line) = lines.next() else {
            bail!("nobody answers; --skip-fingerprint-review does not ask");
        };
        match line.context("read the answer")?.trim() {
            "yes" => return Ok(true),
            "no" => return Ok(false),
            _ => {}
        }
    }
}
