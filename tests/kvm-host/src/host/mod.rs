//! An emulated host on the machine's side: where it is found, what it is made of, and the keeper that owns its
//! processes.

mod emulator;
mod initramfs;
pub mod keeper;
mod modules;
pub mod place;
mod processes;
mod tsc;

use std::path::PathBuf;

pub use processes::port_socket;

/// What an emulated host is made of; the keeper's arguments.
#[derive(Clone, clap::Args)]
pub struct Shape {
    /// Folder of its sockets; removed with it.
    #[arg(long)]
    pub dir: PathBuf,
    /// Folder with vmlinux and lib/modules.
    #[arg(long)]
    pub kernel: PathBuf,
    /// Folders that are the same files on both sides.
    #[arg(long = "folder")]
    pub folders: Vec<PathBuf>,
    /// Memory in MiB.
    #[arg(long)]
    pub memory_mib: u32,
    /// The clock counts instructions.
    #[arg(long)]
    pub icount: bool,
    /// Stays so many seconds after its last client; without it, the host goes with its first client.
    #[arg(long)]
    pub idle_seconds: Option<u64>,
}
