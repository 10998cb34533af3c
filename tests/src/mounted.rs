//! File systems in files, mounted for a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::{finish, image_files};

/// A file with a file system, mounted for as long as this lives.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts `file`, of file system `kind`, at `at`, which is made.
    #[track_caller]
    pub fn new(kind: &str, options: &str, file: &Path, at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a mount point");
        finish(
            Command::new("mount")
                .args(["-t", kind, "-o", options])
                .arg(file)
                .arg(&at),
        )
        .expect_code(0);
        Self(at)
    }

    /// The only image of the data directory `dir`, mounted at `at`, which is made.
    #[track_caller]
    pub fn image(dir: &Path, at: PathBuf) -> Self {
        let files = image_files(dir);
        let attach = |file: &PathBuf| {
            let attached = finish(
                Command::new("losetup")
                    .args(["-r", "-f", "--show"])
                    .arg(file),
            );
            attached.expect_code(0).out().trim_end().to_owned()
        };
        let devices: Vec<_> = files[1..].iter().map(attach).collect();
        let options = devices.iter().map(|device| format!(",device={device}"));
        let options = format!("loop,ro{}", options.collect::<String>());
        let mounted = Self::new("erofs", &options, &files[0], at);
        // They go with the mount.
        for device in &devices {
            finish(Command::new("losetup").args(["-d", device])).expect_code(0);
        }
        mounted
    }

    /// An empty ext4 in `folder`, mounted at its folder `name`: not every host's temporary folder keeps all attributes.
    #[track_caller]
    pub fn ext4(folder: &Path, name: &str) -> Self {
        Self::ext4_of(folder, name, 1 << 30)
    }

    /// The same of so many bytes.
    #[track_caller]
    pub fn ext4_of(folder: &Path, name: &str, bytes: u64) -> Self {
        let file = folder.join("ext4");
        let made = fs::File::create(&file).and_then(|file| file.set_len(bytes));
        made.expect("a sparse file");
        finish(
            Command::new("mkfs.ext4")
                .args(["-q", "-I", "256"])
                .arg(&file),
        )
        .expect_code(0);
        Self::new("ext4", "loop", &file, folder.join(name))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        // A test that fails for another reason says that.
        let unmounted = unmounted.is_ok_and(|status| status.success());
        assert!(unmounted || thread::panicking(), "umount");
    }
}
