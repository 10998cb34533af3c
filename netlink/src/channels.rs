//! How many queues of an interface are used. By ethtool's request to a socket, which asks for less than its netlink family.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use anyhow::{Context, Result, ensure};

use crate::Netlink;
use crate::tap::interface_name;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;

/// `struct ethtool_channels`: what it asks, then of queues that receive, that send, others and those of both kinds how many
/// there may be, and how many there are.
type Channels = [u32; 9];
const MOST_COMBINED: usize = 4;
const COMBINED: usize = 8;

impl Netlink {
    /// Has the interface `name` use all of its queues.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn use_all_queues(&self, name: &str) -> Result<()> {
        let mut channels = [0; 9];
        channels[0] = ETHTOOL_GCHANNELS;
        self.ethtool(name, &mut channels)?;
        if channels[COMBINED] < channels[MOST_COMBINED] {
            channels[0] = ETHTOOL_SCHANNELS;
            channels[COMBINED] = channels[MOST_COMBINED];
            let queues = channels[COMBINED];
            self.ethtool(name, &mut channels)
                .with_context(|| format!("use {queues} queues"))?;
        }
        Ok(())
    }

    fn ethtool(&self, name: &str, channels: &mut Channels) -> Result<()> {
        let ifru_data = ptr::from_mut(channels).cast();
        let mut request = libc::ifreq {
            ifr_name: interface_name(name)?,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data },
        };
        #[expect(unsafe_code, reason = "a request of ethtool's")]
        // SAFETY: it reads and writes the structure that it is given, and that one's as well.
        let done = unsafe { libc::ioctl(self.socket().as_raw_fd(), SIOCETHTOOL, &mut request) };
        ensure!(done == 0, "ask ethtool: {}", io::Error::last_os_error());
        Ok(())
    }
}
