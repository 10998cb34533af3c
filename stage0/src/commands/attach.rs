//! `fairing attach`: this command's stdio becomes an app's, by the stage 1's `attach` entrypoint (contract section 1.7).

use std::os::unix::process::CommandExt;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::Context;
use crate::apps;
use crate::stage1::Stage1;

/// What can be named for --mode, and the entrypoint's flags for it.
const STREAMS: [(&str, &[&str]); 6] = [
    ("stdin", &["stdin"]),
    ("stdout", &["stdout"]),
    ("stderr", &["stderr"]),
    ("tty", &["tty-in", "tty-out"]),
    ("tty-in", &["tty-in"]),
    ("tty-out", &["tty-out"]),
];

/// What the help ends with.
const AFTER_HELP: &str = "\
Shows what the app writes from now on (`fairing logs` has what it wrote before), and passes on what is typed if the app was added \
with -i or -t to a pod that takes apps. At a terminal, Ctrl-P and Ctrl-Q after another leave it. Exit code: the app's.";

/// Attaches to an app that runs
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Attach {
    /// App to attach to; needed in a pod of several
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// All that the app has (auto), what that is (list), or some of it: stdin, stdout, stderr, tty, tty-in, tty-out
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub mode: String,
    /// The pod; a unique beginning is enough
    pub uuid: String,
}

impl Attach {
    /// Becomes the entrypoint.
    ///
    /// # Errors
    /// If the pod does not run, or its stage 1 cannot attach to it.
    pub fn run(self, context: &Context) -> Result<i32> {
        let pod = context.pods.find(&self.uuid)?;
        pod.expect_running()?;
        let app = pod.app_or_only(self.app.as_deref(), "--app")?;
        let mut command = apps::crossing(&pod, &Stage1::of_pod(&pod)?, "attach")?;
        let error = command
            .args(self.arguments()?)
            .arg(format!("--app={app}"))
            .arg(format!("--debug={}", context.settings.debug))
            .exec();
        Err(error).with_context(|| format!("execute the attach entrypoint of pod {}", pod.uuid()))
    }

    fn arguments(&self) -> Result<Vec<String>> {
        match self.mode.as_str() {
            "list" => return Ok(vec!["--action=list".to_owned()]),
            "auto" => return Ok(vec!["--action=auto-attach".to_owned()]),
            _ => {}
        }
        let mut wanted = Vec::new();
        for name in self.mode.split(',') {
            let known = STREAMS.iter().find(|(known, _)| *known == name);
            let Some((_, flags)) = known else {
                bail!(
                    "--mode={name}: there are auto, list, stdin, stdout, stderr, tty, tty-in and tty-out"
                );
            };
            wanted.extend(*flags);
        }
        let flags = ["tty-in", "tty-out", "stdin", "stdout", "stderr"];
        let flags = flags.map(|flag| format!("--{flag}={}", wanted.contains(&flag)));
        Ok(std::iter::once("--action=custom-attach".to_owned())
            .chain(flags)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_is_what_the_contract_passes() {
        let arguments = |mode: &str| {
            let attach = Attach {
                app: None,
                mode: mode.to_owned(),
                uuid: String::new(),
            };
            attach.arguments().map(|arguments| arguments.join(" "))
        };
        assert_eq!(arguments("auto").expect("valid"), "--action=auto-attach");
        assert_eq!(
            arguments("stdin,stderr").expect("valid"),
            "--action=custom-attach --tty-in=false --tty-out=false --stdin=true --stdout=false --stderr=true"
        );
        assert_eq!(
            arguments("tty").expect("valid"),
            "--action=custom-attach --tty-in=true --tty-out=true --stdin=false --stdout=false --stderr=false"
        );
        assert!(arguments("stdin,x").is_err() && arguments("").is_err());
    }
}
