//! From a fresh child of PID 1 to the app's first instruction: the list of steps, in the app's process.
//!
//! Started by `App::start`. Whatever fails is told to PID 1, and the process exits.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result};
use guest_init::protocol;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, execve, gethostname};

use crate::account::{Account, Lookup};
use crate::cgroup::Cgroup;
use crate::command::{candidates, run_first};
use crate::fault::Fault;
use crate::mount_table::remount_read_only;
use crate::report::Reporter;
use crate::stdio::{self, AppStdio};
use crate::{app_files, app_root, app_view, privileges, process, volumes};

/// All that the app's process needs.
pub struct Launch<'a> {
    /// What the host said.
    pub app: &'a protocol::App,
    /// The app's cgroup.
    pub cgroup: &'a Cgroup,
    /// Its stdio.
    pub stdio: &'a AppStdio,
    /// The line to PID 1.
    pub reporter: &'a Reporter,
}

impl Launch<'_> {
    /// Becomes the app, or exits.
    pub fn run(&self) -> ! {
        let Err(fault) = self.try_run();
        self.reporter.failed(&fault);
        std::process::exit(i32::from(fault.code))
    }

    fn try_run(&self) -> Result<Infallible, Fault> {
        process::reset_signals().context("reset the signals")?;
        umask(Mode::empty());

        // The cgroup first: the namespace's root is where its maker is.
        self.cgroup.join()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)
            .context("make the app's namespaces")?;
        let machine = app_root::enter(self.app)?;

        // Accounts and files while the image alone is there: its links lead nowhere else.
        let account = self.account()?;
        app_files::complete(
            &gethostname()
                .context("read the host name")?
                .to_string_lossy(),
        )?;
        app_view::complete(&machine, self.app.restrict_paths)?;
        volumes::place(self.app, &machine)?;
        machine.leave()?;

        self.enter_working_directory()?;
        stdio::take(self.stdio, &account, self.reporter)?;
        if self.app.read_only_root {
            // Last of all that writes there.
            remount_read_only("/", MsFlags::empty()).context("make the root read-only")?;
        }
        umask(Mode::from_bits_truncate(0o022));
        privileges::drop_to(&account, self.app.restrict_capabilities)?;
        Err(self.execute()?)
    }

    fn account(&self) -> Result<Account> {
        let (passwd, groups) = (
            app_files::read_accounts("/etc/passwd")?,
            app_files::read_accounts("/etc/group")?,
        );
        let protocol::App {
            user,
            group,
            supplementary_gids,
            ..
        } = self.app;
        Lookup {
            user,
            group,
            supplementary_gids,
            passwd: &passwd,
            groups: &groups,
        }
        .resolve(app_files::owner)
    }

    fn enter_working_directory(&self) -> Result<()> {
        let path = &*self.app.working_directory;
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.with_context(|| format!("make working directory {path}"))?;
        chdir(path).with_context(|| format!("enter working directory {path}"))
    }

    /// Returns only if the command cannot be executed.
    fn execute(&self) -> Result<Fault> {
        let text = |text: &str| CString::new(text).with_context(|| format!("{text:?} has a NUL"));
        let app = self.app;
        let command = app.exec.first().context("no command")?;
        let arguments = app
            .exec
            .iter()
            .map(|argument| text(argument))
            .collect::<Result<Vec<_>>>()?;
        let environment = app
            .environment
            .iter()
            .map(|(name, value)| text(&format!("{name}={value}")))
            .collect::<Result<Vec<_>>>()?;
        let candidates = candidates(command, &app.search_path, &app.working_directory);
        Ok(run_first(
            command,
            &candidates,
            |candidate| match CString::new(candidate) {
                Ok(candidate) => match execve(&candidate, &arguments, &environment) {
                    Err(error) => error,
                },
                Err(_) => nix::errno::Errno::ENOENT,
            },
        ))
    }
}
