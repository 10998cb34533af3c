//! The files of an image, one after the other for who asks for them: a thread of its own walks the image and is a few files ahead.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Result, anyhow};

use crate::outgoing::{Files, Found};

/// Files that are read ahead.
const AHEAD: usize = 64;

/// The files that are still to come.
pub struct Before {
    found: Receiver<Result<Found>>,
    next: Option<Found>,
}

impl Before {
    /// Hands the files of an image, or none, to `work`.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn of<T>(files: Option<&Files>, work: impl FnOnce(Self) -> Result<T>) -> Result<T> {
        thread::scope(|scope| {
            let (sender, found) = sync_channel(AHEAD);
            // With it the sender goes: that is the end of the files.
            scope.spawn(move || {
                let walked = files.map_or(Ok(()), |files| {
                    files.each(|found| {
                        let sent = sender.send(Ok(found.clone()));
                        sent.map_err(|_| anyhow!("nobody asks for more"))
                    })
                });
                if let Err(error) = walked {
                    // Who does not ask for more does not hear why there is none.
                    let _ = sender.send(Err(error));
                }
            });
            work(Self { found, next: None })
        })
    }

    /// The next file, if it is one that is `wanted`; else it stays the next.
    ///
    /// # Errors
    /// If the image is damaged.
    pub fn next_if(&mut self, wanted: impl FnOnce(&Found) -> bool) -> Result<Option<Found>> {
        if self.next.is_none() {
            self.next = self.found.recv().ok().transpose()?;
        }
        Ok(self.next.take_if(|found| wanted(found)))
    }
}
