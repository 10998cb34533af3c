//! An image's EROFS file as the crate erofs-rs reads it: by offsets, with bounded memory, whatever becomes of the file meanwhile
//! (a mapping would end the process where the file ends early). Nothing is ever waited for: each future is ready at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use erofs_rs::backend::AsyncImage;
use erofs_rs::{Error, Result};

/// The file.
pub struct Device(pub File);

impl AsyncImage for Device {
    async fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = self.0.read_exact_at(buffer, offset);
        read.map_err(|error| Error::OutOfBounds(format!("read at byte {offset}: {error}")))
    }
}

/// What `future` gives, which waits for nothing but a [`Device`].
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
