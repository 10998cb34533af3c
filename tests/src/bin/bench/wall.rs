//! Plain wall-clock times of whole starts, ours and the peer's in turn, on whatever host this is.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::chamber;
use crate::subject::{Job, Subject};

const ROUNDS: usize = 5;

/// The median of each subject's times from start to end, ms.
pub fn measure(images: &str) -> Result<BTreeMap<Subject, u64>> {
    chamber::enter(images)?;
    let mut times = BTreeMap::<Subject, Vec<u64>>::new();
    for _ in 0..=ROUNDS {
        for subject in Subject::ALL {
            let started = Instant::now();
            let done = subject
                .command(Job::Echo)?
                .output()
                .context("start the VMM")?;
            let elapsed = u64::try_from(started.elapsed().as_millis())?;
            ensure!(
                done.status.code() == Some(subject.good_code()),
                "{subject:?}: {done:?}"
            );
            times.entry(subject).or_default().push(elapsed);
        }
    }
    Ok(times
        .into_iter()
        .map(|(subject, times)| (subject, median(&times[1..])))
        .collect())
}

/// The middle one of an odd number of values.
pub fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}
