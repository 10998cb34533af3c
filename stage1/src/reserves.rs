//! What apps that come to a running pod need of its process: threads for their streams and room on the images disk.
//!
//! The session's thread may start none: one whose filter allows that, and little else, waits for its word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use guest_init::protocol::{App, IMAGE_SLOT_BYTES, IMAGE_SLOTS, Root, Stdio};
use vmm::disk::{Extent, Extents};
use vmm_sys_util::eventfd::EventFd;

use crate::jail::seccomp::{self, Kind};
use crate::log::Log;
use crate::plan::Plan;
use crate::streams::{self, Input, Ports, Pumps, Sharing};
use crate::volumes::Source;

/// What a session can give to new apps.
pub struct Reserves {
    orders: Sender<(Stdio, Sharing)>,
    started: Receiver<Result<Pumps>>,
    drained: Arc<EventFd>,
    images: Extents,
    /// Places of the images disk that hold something.
    taken: BTreeSet<u8>,
    /// What is shared, by number, and what it was then; of shares that the pod began with nobody looked.
    shares: BTreeMap<u16, Option<Source>>,
    /// Of the next share: a guest may remember for a while what had an old number.
    next_share: u16,
    most_shares: u16,
}

impl Reserves {
    /// Starts the thread that starts others; what the apps of `plan` need is taken.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(
        ports: &Ports,
        drained: &Arc<EventFd>,
        images: Extents,
        plan: &Plan,
    ) -> Result<Self> {
        let (orders, received) = mpsc::channel::<(Stdio, Sharing)>();
        let (done, started) = mpsc::channel();
        let ports = ports.clone();
        streams::spawn("starter", seccomp::confine_starter, move || {
            for (stdio, sharing) in received {
                if done.send(Pumps::start(stdio, &ports, &sharing)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            orders,
            started,
            drained: Arc::clone(drained),
            images,
            taken: (0..plan.images).collect(),
            next_share: u16::try_from(plan.shares.len())?,
            most_shares: plan.later_shares,
            shares: (0..).zip(plan.shares.iter().map(|_| None)).collect(),
        })
    }

    /// Starts the pumps of an app.
    ///
    /// # Errors
    /// When a socket pair or a thread cannot be made.
    pub fn pumps(&self, stdio: Stdio, app: &str, log: Arc<Mutex<Log>>) -> Result<Pumps> {
        let sharing = Sharing {
            drained: Arc::clone(&self.drained),
            confine: || seccomp::confine_thread(Kind::Pump),
            label: Some(app.to_owned()),
            log: Some(log),
            input: Input::Visitors,
        };
        self.orders
            .send((stdio, sharing))
            .ok()
            .context("the thread that starts others is gone")?;
        let started = self.started.recv();
        started.context("the thread that starts others is gone")?
    }

    /// Lays an image's files on the disk; gives the root that it is.
    ///
    /// # Errors
    /// When it is too large, or no files, or there is no place.
    pub fn lay(&mut self, image: Vec<File>) -> Result<Root> {
        let mut free = (0..IMAGE_SLOTS).filter(|number| !self.taken.contains(number));
        let number = free.next().context("too many images for one pod")?;
        let (extents, bytes) = image_extents(number, image)?;
        for extent in extents {
            if let Err(error) = self.images.lay(extent) {
                self.images.take_off(slot(number));
                return Err(error);
            }
        }
        self.taken.insert(number);
        Ok(Root::Image { number, bytes })
    }

    /// The numbers of `shares`, and whether each is new: two apps that share a folder share its locks and caches, too.
    ///
    /// # Errors
    /// When the pod takes none, or not so many.
    pub fn number(&mut self, shares: &[Source]) -> Result<Vec<(u16, bool)>> {
        ensure!(
            self.most_shares > 0,
            "a pod that was started without root is given no folders of the host"
        );
        let mut next = self.next_share;
        let mut numbers = Vec::new();
        for share in shares {
            let mut known = self.shares.iter();
            let known = known.find(|(_, known)| known.as_ref() == Some(share));
            numbers.push(known.map_or((next, true), |(number, _)| (*number, false)));
            if known.is_none() {
                next = next
                    .checked_add(1)
                    .context("too many host volumes have been given to this pod: start it anew")?;
            }
        }
        let new = usize::from(next - self.next_share);
        ensure!(
            self.shares.len() + new <= usize::from(self.most_shares),
            "a pod has at most {} host volumes at a time",
            self.most_shares
        );
        self.next_share = next;
        Ok(numbers)
    }

    /// Takes note of shares that have been mounted.
    pub fn share(&mut self, shares: BTreeMap<u16, Source>) {
        let shares = shares.into_iter();
        self.shares
            .extend(shares.map(|(number, share)| (number, Some(share))));
    }

    /// Whether all shares of `app` are there, or among the `new` ones.
    pub fn have_shares_of(&self, app: &App, new: &BTreeMap<u16, Source>) -> bool {
        app.shares()
            .all(|(number, _)| self.shares.contains_key(&number) || new.contains_key(&number))
    }

    /// Takes an image off the disk, and forgets shares.
    pub fn forget(&mut self, image: Option<u8>, shares: &[u16]) {
        if let Some(number) = image {
            self.images.take_off(slot(number));
            self.taken.remove(&number);
        }
        self.shares.retain(|number, _| !shares.contains(number));
    }
}

/// Where the image `number` lies on the images disk.
fn slot(number: u8) -> Range<u64> {
    let offset = u64::from(number) * IMAGE_SLOT_BYTES;
    offset..offset + IMAGE_SLOT_BYTES
}

/// The files of the image `number`, one behind the other in its slot, and how long they are together.
///
/// # Errors
/// When they are no files, or larger than a slot.
pub fn image_extents(number: u8, files: Vec<File>) -> Result<(Vec<Extent>, u64)> {
    let slot = slot(number);
    let mut offset = slot.start;
    let mut extents = Vec::new();
    for mut file in files {
        let bytes = file.seek(SeekFrom::End(0)).context("size the image")?;
        ensure!(
            bytes <= slot.end - offset,
            "the image is larger than {} GiB",
            IMAGE_SLOT_BYTES >> 30
        );
        extents.push(Extent {
            offset,
            bytes,
            file,
        });
        offset += bytes;
    }
    Ok((extents, offset - slot.start))
}
