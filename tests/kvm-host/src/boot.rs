//! What the keeper tells the emulated host's first process: a file in the initramfs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::wire::strings;

/// Where the file lies in the initramfs.
pub const PATH: &str = "/boot-order";

/// How the emulated host is to be set up.
#[derive(Debug, PartialEq, Eq)]
pub struct BootOrder {
    /// Host name, the machine's own.
    pub host_name: OsString,
    /// Folder of the kernel's modules on the machine, `…/lib/modules/RELEASE`.
    pub modules: PathBuf,
    /// Modules to load, files of the initramfs, in this order.
    pub load: Vec<PathBuf>,
    /// Folders that are the same files here and on the machine, outer ones before inner ones.
    pub folders: Vec<PathBuf>,
}

impl BootOrder {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        strings::put(&mut out, self.host_name.as_bytes())?;
        strings::put(&mut out, self.modules.as_os_str().as_bytes())?;
        for list in [&self.load, &self.folders] {
            strings::put_list(
                &mut out,
                list.iter().map(|path| path.as_os_str().as_bytes()),
            )?;
        }
        Ok(out)
    }

    /// Reads the file's bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Self> {
        let paths = |list: Vec<Vec<u8>>| {
            list.into_iter()
                .map(|path| OsString::from_vec(path).into())
                .collect()
        };
        let order = Self {
            host_name: OsString::from_vec(strings::take(&mut bytes)?),
            modules: OsString::from_vec(strings::take(&mut bytes)?).into(),
            load: paths(strings::take_list(&mut bytes)?),
            folders: paths(strings::take_list(&mut bytes)?),
        };
        if !bytes.is_empty() {
            bail!("{} bytes after the boot order", bytes.len());
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_order_encoded_and_decoded_is_the_same() {
        let order = BootOrder {
            host_name: "here".into(),
            modules: "/m/6.1".into(),
            load: vec!["/modules/0".into()],
            folders: vec!["/tmp".into(), "/a b".into()],
        };
        assert_eq!(BootOrder::decode(&order.encode().unwrap()).unwrap(), order);
        assert!(BootOrder::decode(b"\x01\0\0").is_err());
    }
}
