//! From the way a machine ended to what the user is told and the pod's exit code.

use std::sync::atomic::{AtomicBool, Ordering};

use guest_init::protocol::END_POWERED_OFF;
use vmm::end::{End, Ended};

use crate::life::{self, FAILED};

/// Lines of the kernel's last words that are shown.
const LAST_LINES: usize = 20;

/// The pod's exit code. `code` is what the pod came to before its machine ended, if it did; without one the user is
/// told what happened to the machine.
pub fn exit_code(code: Option<u8>, ended: &Ended, host_disk_full: &AtomicBool) -> u8 {
    if host_disk_full.load(Ordering::Relaxed) {
        crate::tell(
            "the host's disk is full: the pod's writes to its scratch disk failed; free space and run it again",
        );
    }
    match (code, &ended.end) {
        (Some(code), End::PoweredOff(END_POWERED_OFF) | End::Stopped) => code,
        (Some(code @ life::TIMED_OUT), _) => code,
        (_, end) => {
            crate::tell(&description(end));
            last_lines(&ended.last_words)
                .for_each(|line| crate::tell(&format!("guest: {}", life::printable(line))));
            FAILED
        }
    }
}

fn description(end: &End) -> String {
    match end {
        End::PoweredOff(END_POWERED_OFF) => "the machine ended before its app did".into(),
        End::PoweredOff(code) => format!("guest-init gave up (code {code})"),
        End::Reset => "the guest reset its machine".into(),
        End::Panicked => "the guest's kernel panicked; is its memory (--memory) enough?".into(),
        End::TripleFault => "the guest's CPU shut down (triple fault)".into(),
        End::KvmFailed { reason, registers } => {
            format!(
                "KVM could not run the machine: {reason}; `fairing doctor` checks this host's KVM\n{registers}"
            )
        }
        End::Stopped => "the machine was stopped".into(),
    }
}

fn last_lines(words: &str) -> impl Iterator<Item = &str> {
    let lines = words.lines().count();
    words.lines().skip(lines.saturating_sub(LAST_LINES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(end: End) -> Ended {
        Ended {
            end,
            last_words: String::new(),
            exits: 0,
        }
    }

    #[test]
    fn exit_code_of_an_orderly_end_is_the_apps() {
        assert_eq!(
            exit_code(
                Some(42),
                &ended(End::PoweredOff(END_POWERED_OFF)),
                &AtomicBool::new(false)
            ),
            42
        );
        assert_eq!(
            exit_code(Some(130), &ended(End::Stopped), &AtomicBool::new(false)),
            130
        );
    }

    #[test]
    fn exit_code_of_a_machine_that_broke_is_our_own() {
        for end in [
            End::Panicked,
            End::Reset,
            End::TripleFault,
            End::PoweredOff(END_POWERED_OFF),
        ] {
            assert_eq!(
                exit_code(None, &ended(end), &AtomicBool::new(false)),
                FAILED
            );
        }
        assert_eq!(
            exit_code(Some(0), &ended(End::Panicked), &AtomicBool::new(false)),
            FAILED
        );
    }
}
