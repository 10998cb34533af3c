//! One blob on its way: hashed while it arrives, gone on with where it broke off, never more of it than was promised.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use image::oci::{Digest, Hash};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use transfer::{Attempts, Cancel, Fault, Paced, begins_at, broken};

use crate::client::Client;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// A blob that is wanted.
pub struct Download<'a> {
    pub client: &'a Client,
    pub digest: &'a Digest,
    pub size: u64,
    pub cancel: &'a Cancel,
    /// Told how many more bytes are there, or fewer.
    pub progress: &'a (dyn Fn(i64) + Sync),
}

/// What is there of a blob.
struct Received<'a> {
    file: &'a File,
    hash: Hash,
    length: u64,
}

impl Download<'_> {
    /// Fills `file`, which may have the blob's beginning.
    ///
    /// # Errors
    /// If the blob cannot be had whole, or is another than promised; then nothing of it is left in the file.
    pub fn fill(&self, file: &File) -> Result<()> {
        let mut received = self.resume(file)?;
        let resumed = received.length > 0;
        self.receive(&mut received)?;
        if resumed && received.hash.clone().finish() != *self.digest {
            // What was there may have been damaged.
            received = self.restart(file, received.length)?;
            self.receive(&mut received)?;
        }
        let found = received.hash.finish();
        if found != *self.digest {
            file.set_len(0).context("empty the blob's file")?;
            bail!("wrong digest: the registry sends {found} for it");
        }
        Ok(())
    }

    /// Hashes what is there.
    fn resume<'f>(&self, file: &'f File) -> Result<Received<'f>> {
        let length = file.metadata().context("look at the blob's file")?.len();
        if length > self.size {
            return self.restart(file, 0);
        }
        let mut received = Received {
            file,
            hash: Hash::new(self.digest.algorithm()),
            length: 0,
        };
        let mut buffer = vec![0; BUFFER_BYTES];
        while received.length < length {
            let count = file
                .read_at(&mut buffer, received.length)
                .context("read the blob's file")?;
            if count == 0 {
                break;
            }
            received.hash.update(&buffer[..count]);
            received.length += count as u64;
        }
        self.tell(received.length, true);
        Ok(received)
    }

    fn restart<'f>(&self, file: &'f File, told: u64) -> Result<Received<'f>> {
        file.set_len(0).context("empty the blob's file")?;
        self.tell(told, false);
        Ok(Received {
            file,
            hash: Hash::new(self.digest.algorithm()),
            length: 0,
        })
    }

    fn tell(&self, bytes: u64, more: bool) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        (self.progress)(if more { bytes } else { -bytes });
    }

    fn receive(&self, received: &mut Received<'_>) -> Result<()> {
        let mut attempts = Attempts::new(self.client.patience(), self.cancel);
        while received.length < self.size {
            attempts.reached(received.length);
            match self.attempt(received) {
                Ok(()) => {}
                Err(fault) => attempts.after(fault)?,
            }
        }
        Ok(())
    }

    fn attempt(&self, received: &mut Received<'_>) -> Result<(), Fault> {
        let address = self.client.address(&format!("blobs/{}", self.digest));
        let from = received.length;
        let response = self.client.send(&|| {
            let request = self
                .client
                .request(Method::GET, &address)
                .header(ACCEPT_ENCODING, "identity");
            Ok(match from {
                0 => request,
                from => request.header(RANGE, format!("bytes={from}-")),
            })
        })?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(response.headers(), from) => {}
            StatusCode::OK if from == 0 => {}
            StatusCode::OK => *received = self.restart(received.file, from)?,
            status => {
                let range = response.headers().get(CONTENT_RANGE);
                return Err(Fault::lasting(format!(
                    "the registry answers {status} with {range:?} for bytes from {from} on"
                )));
            }
        }
        let rest = self.size - received.length;
        match response.content_length() {
            Some(promised) if promised > rest => return Err(self.too_long()),
            _ => {}
        }
        self.copy(&mut Paced::new(response, self.client.patience()), received)
    }

    fn too_long(&self) -> Fault {
        Fault::lasting(format!(
            "the registry sends more than the {} bytes that its descriptor says",
            self.size
        ))
    }

    fn copy(&self, answer: &mut impl Read, received: &mut Received<'_>) -> Result<(), Fault> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            if self.cancel.is_set() {
                return Err(Fault::lasting("another part of the image failed"));
            }
            let count = answer.read(&mut buffer).map_err(|error| broken(&error))?;
            if count == 0 {
                break;
            }
            if count as u64 > self.size - received.length {
                return Err(self.too_long());
            }
            received
                .file
                .write_all_at(&buffer[..count], received.length)
                .context("write the blob's file")?;
            received.hash.update(&buffer[..count]);
            received.length += count as u64;
            self.tell(count as u64, true);
        }
        if received.length < self.size {
            return Err(Fault::passing(format!(
                "the blob breaks off after {} of {} bytes",
                received.length, self.size
            )));
        }
        Ok(())
    }
}
