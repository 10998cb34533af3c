//! The states of a pod: which folder its directory lies in, and whether somebody holds its lock (contract section 1.9).

use std::fmt;

/// The folder of `pods/` that a pod's directory lies in; moving it to the next is how a pod changes its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Just made, nothing in it.
    Embryo,
    /// Being laid out.
    Prepare,
    /// Laid out, waiting for `run-prepared`.
    Prepared,
    /// Handed to stage 1.
    Run,
    /// Ran, about to be deleted.
    ExitedGarbage,
    /// Never ran, about to be deleted.
    Garbage,
}

impl Folder {
    /// Every folder, in the order of a pod's life.
    pub const ALL: [Self; 6] = [
        Self::Embryo,
        Self::Prepare,
        Self::Prepared,
        Self::Run,
        Self::ExitedGarbage,
        Self::Garbage,
    ];

    /// Its name below `pods/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Prepare => "prepare",
            Self::Prepared => "prepared",
            Self::Run => "run",
            Self::ExitedGarbage => "exited-garbage",
            Self::Garbage => "garbage",
        }
    }
}

/// What a pod is doing, in the words of `list` and `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Just made.
    Embryo,
    /// Some `fairing` process lays it out.
    Preparing,
    /// The process that laid it out has died.
    AbortedPrepare,
    /// Waits for `run-prepared`.
    Prepared,
    /// Its stage 1 lives.
    Running,
    /// Its stage 1 has ended; logs and status are still there.
    Exited,
    /// Being deleted after it ran.
    ExitedDeleting,
    /// Marked for deletion after it ran.
    ExitedGarbage,
    /// Being deleted, never ran.
    Deleting,
    /// Marked for deletion, never ran.
    Garbage,
}

impl State {
    /// The state of a pod in `folder` whose lock is held by somebody or nobody.
    pub fn of(folder: Folder, locked: bool) -> Self {
        match (folder, locked) {
            (Folder::Embryo, _) => Self::Embryo,
            (Folder::Prepare, true) => Self::Preparing,
            (Folder::Prepare, false) => Self::AbortedPrepare,
            (Folder::Prepared, _) => Self::Prepared,
            (Folder::Run, true) => Self::Running,
            (Folder::Run, false) => Self::Exited,
            (Folder::ExitedGarbage, true) => Self::ExitedDeleting,
            (Folder::ExitedGarbage, false) => Self::ExitedGarbage,
            (Folder::Garbage, true) => Self::Deleting,
            (Folder::Garbage, false) => Self::Garbage,
        }
    }

    /// Whether its stage 1 was started and has ended.
    pub fn has_ended(self) -> bool {
        matches!(
            self,
            Self::Exited | Self::ExitedDeleting | Self::ExitedGarbage
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Embryo => "embryo",
            Self::Preparing => "preparing",
            Self::AbortedPrepare => "aborted prepare",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedDeleting => "exited deleting",
            Self::ExitedGarbage => "exited garbage",
            Self::Deleting => "deleting",
            Self::Garbage => "garbage",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_each_folder_and_lock_is_the_contracts() {
        let table = [
            (Folder::Embryo, "embryo", "embryo"),
            (Folder::Prepare, "preparing", "aborted prepare"),
            (Folder::Prepared, "prepared", "prepared"),
            (Folder::Run, "running", "exited"),
            (Folder::ExitedGarbage, "exited deleting", "exited garbage"),
            (Folder::Garbage, "deleting", "garbage"),
        ];
        for (folder, locked, unlocked) in table {
            assert_eq!(State::of(folder, true).to_string(), locked);
            assert_eq!(State::of(folder, false).to_string(), unlocked);
        }
    }
}
