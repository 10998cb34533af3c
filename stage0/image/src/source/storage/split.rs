//! The tar of a layer, put together as it was of its headers and its files: the format of tar-split.
//!
//! containers/storage keeps a layer unpacked, and beside it, compressed, what its tar had besides: a line of JSON for
//! each run of bytes (headers, padding) and for each file between them. What comes out is hashed by who reads it. The
//! image is a stranger's: its lines are bounded, its paths are resolved inside the layer's folder.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Take};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Deserialize;

use super::lock::ReadLock;
use super::place::Storage;
use crate::decompress::decompress;

/// Bytes of one line; the longest headers taken of a tar have a third of it.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// `FileType` of tar-split.
const FILE: u8 = 1;
/// `SegmentType` of tar-split.
const SEGMENT: u8 = 2;

/// One line. Names that are no UTF-8 and all runs of bytes are in base64.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    name_raw: Cow<'a, str>,
    #[serde(default)]
    size: u64,
    #[serde(borrow, default)]
    payload: Option<Cow<'a, str>>,
}

/// A layer of a storage.
pub struct Split {
    storage: Storage,
    id: String,
    length: u64,
    image: String,
    object: String,
}

impl Split {
    /// The layer `id`, a safe file name, of `length` bytes (0: unknown), of the image called `image`.
    pub fn new(storage: Storage, id: String, length: u64, image: &str) -> Self {
        Self {
            object: format!("layer {id} of {image} in {}", storage.root().display()),
            storage,
            id,
            length,
            image: image.to_owned(),
        }
    }

    /// Bytes of the tar; 0 if nobody says.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What it is called in errors.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// A reader of the tar. From its first byte to its end nobody can remove the layer.
    pub fn reader(&self) -> SplitReader<'_> {
        SplitReader {
            split: self,
            opened: None,
        }
    }

    fn open(&self) -> Result<Opened> {
        let lock = self.storage.lock("layers")?;
        let path = self.storage.headers(&self.id);
        let headers = File::open(&path).with_context(|| {
            format!(
                "open {}: the image was removed meanwhile, or its layer did not come as a tar; then {} takes it",
                path.display(),
                self.by_podman()
            )
        })?;
        let (_, headers) = decompress(headers)?;
        let files = self.storage.files(&self.id);
        Ok(Opened {
            headers: BufReader::new(headers),
            files: File::open(&files).with_context(|| format!("open {}", files.display()))?,
            piece: Piece::default(),
            _lock: lock,
        })
    }

    /// The file at `path` of the layer, of `size` bytes.
    fn file(&self, files: &File, path: &Path, size: u64) -> Result<File> {
        // A link that the image planted must not lead out of it. What the tar named `/a` or `../a` was unpacked as `a`.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let open = || -> io::Result<Option<File>> {
            // To open a device would be to use it.
            let place = File::from(openat2(files, path, how)?);
            let metadata = place.metadata()?;
            if !metadata.is_file() || metadata.len() != size {
                return Ok(None);
            }
            File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).map(Some)
        };
        match open() {
            Ok(Some(file)) => Ok(file),
            Ok(None) => {
                bail!("{path:?} is no longer the file of {size} bytes that came with the layer")
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
                "open {path:?}: it is not this user's to read (without root, podman keeps files as other uids of his); {} takes \
                 the image",
                self.by_podman()
            ),
            Err(error) => Err(error).with_context(|| format!("open {path:?}")),
        }
    }

    fn by_podman(&self) -> String {
        format!("`podman save {} | fairing image import -`", self.image)
    }
}

/// What comes next of a tar.
enum Piece {
    Bytes(Cursor<Vec<u8>>),
    File(Take<File>),
}

impl Default for Piece {
    fn default() -> Self {
        Self::Bytes(Cursor::default())
    }
}

/// A layer that is being read.
struct Opened {
    headers: BufReader<Box<dyn Read>>,
    files: File,
    piece: Piece,
    _lock: ReadLock,
}

impl Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.piece {
            Piece::Bytes(bytes) => bytes.read(buffer),
            Piece::File(file) => {
                let count = file.read(buffer)?;
                if count == 0 && file.limit() > 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Ok(count)
            }
        }
    }

    /// Goes on to the next piece; false at the end.
    fn advance(&mut self, split: &Split) -> Result<bool> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.headers).take(MAX_LINE_BYTES);
        bounded
            .read_until(b'\n', &mut line)
            .context("read its headers")?;
        if line.is_empty() {
            return Ok(false);
        }
        if line.len() as u64 == MAX_LINE_BYTES {
            bail!("a line of its headers has {MAX_LINE_BYTES} bytes or more");
        }
        let line: Line = serde_json::from_slice(&line).map_err(|_| {
            Error::msg("its headers are damaged: a line is not what tar-split writes")
        })?;
        self.piece = match line.kind {
            SEGMENT => {
                let payload = line.payload.unwrap_or_default();
                let bytes = STANDARD.decode(&*payload).context("decode its headers")?;
                Piece::Bytes(Cursor::new(bytes))
            }
            FILE if line.size > 0 => {
                let path = path_of(&line)?;
                Piece::File(split.file(&self.files, &path, line.size)?.take(line.size))
            }
            // Folders, links and empty files are headers only.
            FILE => Piece::default(),
            other => bail!("its headers hold an entry of an unknown kind, {other}"),
        };
        Ok(true)
    }
}

fn path_of(line: &Line<'_>) -> Result<PathBuf> {
    if line.name_raw.is_empty() {
        return Ok(PathBuf::from(&*line.name));
    }
    let bytes = STANDARD
        .decode(&*line.name_raw)
        .context("decode a name in its headers")?;
    Ok(OsString::from_vec(bytes).into())
}

/// Reads a layer's tar once.
pub struct SplitReader<'a> {
    split: &'a Split,
    opened: Option<Opened>,
}

impl Read for SplitReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let failed = |error: Error| io::Error::other(format!("{error:#}"));
        let opened = match &mut self.opened {
            Some(opened) => opened,
            none => none.insert(self.split.open().map_err(failed)?),
        };
        loop {
            let count = opened.read(buffer)?;
            if count > 0 || !opened.advance(self.split).map_err(failed)? {
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use hostile::{damage, faults};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A storage with one layer, whose headers these are.
    fn layer(headers: &[u8]) -> (tempfile::TempDir, Split) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["vfs-images", "vfs-layers", "vfs/dir/l/a"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("vfs-images/images.json"), "[]").unwrap();
        fs::write(root.join("vfs-layers/layers.lock"), "").unwrap();
        fs::write(root.join("vfs-layers/l.tar-split.gz"), headers).unwrap();
        fs::write(root.join("vfs/dir/l/a/file"), "content").unwrap();
        fs::write(root.join("vfs/dir/l/caf\u{e9}"), "more").unwrap();
        symlink("/a", root.join("vfs/dir/l/up")).unwrap();
        symlink("/proc/self/cmdline", root.join("vfs/dir/l/out")).unwrap();
        let storage = Storage::in_folder(root, None).unwrap().remove(0);
        (folder, Split::new(storage, "l".to_owned(), 0, "image"))
    }

    fn lines() -> Vec<u8> {
        let lines = [
            json!({"type": 2, "payload": STANDARD.encode("<"), "position": 0}),
            json!({"type": 1, "name": "../up/file", "size": 7, "payload": "AAAAAAAAAAA=", "position": 1}),
            json!({"type": 1, "name": "a/", "payload": null, "position": 2}),
            json!({"type": 2, "payload": STANDARD.encode([0; 300]), "position": 3}),
            json!({"type": 1, "name_raw": STANDARD.encode("caf\u{e9}"), "size": 4, "payload": "", "position": 4}),
        ];
        lines.map(|line| format!("{line}\n")).concat().into_bytes()
    }

    fn read(split: &Split) -> io::Result<Vec<u8>> {
        let mut tar = Vec::new();
        split.reader().read_to_end(&mut tar)?;
        Ok(tar)
    }

    #[test]
    fn pieces_come_out_as_the_tar_that_they_were() {
        let (_folder, split) = layer(&lines());
        let expected = [&b"<content"[..], &[0; 300], b"more"].concat();
        assert_eq!(read(&split).unwrap(), expected);
    }

    #[test]
    fn link_out_of_the_layer_and_endless_line_are_refused() {
        let out = json!({"type": 1, "name": "out", "size": 9}).to_string();
        let long = "x".repeat(5 << 20);
        for headers in [out, long] {
            let (_folder, split) = layer(headers.as_bytes());
            read(&split).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn headers_with_faults_are_read_or_refused(faults in faults(3)) {
            let mut headers = lines();
            damage(&mut headers, &faults);
            let (_folder, split) = layer(&headers);
            let tar = read(&split);
            prop_assert!(tar.is_ok() || !faults.is_empty());
            prop_assert!(tar.map_or(0, |tar| tar.len()) < 4096);
        }
    }
}
