//! Answers of a registry and of its login server, over a socket: documents, challenges, redirects, tokens, refusals. Input:
//! the answers in order, parted by a zero byte; one that does not begin with `HTTP/` is a body. `@HOST@` in it is the server.
//!
//! Nothing else is asked: under `scripts/fuzz` the network has loopback alone.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use image::oci::{Algorithm, Digest};
use registry::{Access, Blobs, Options, Patience, Verify};
use serde_json::json;

/// What stands for the server's address.
const HOST: &str = "@HOST@";
/// Most bytes of all blobs.
const MAX_BYTES: u64 = 1 << 20;

/// Pulls an image from who answers so.
pub fn run(input: &[u8]) {
    pulled(input);
}

fn pulled(input: &[u8]) -> Option<()> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = Server {
        address: listener.local_addr().expect("an address"),
        answers: Mutex::new(input.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()),
        over: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&listener));
        let pulled = server.pull();
        server.over.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect(server.address);
        // A scope's end waits for the closure alone: what the thread frees when it ends would be taken for a leak.
        serving.join().expect("a server that does not panic");
        pulled
    })
}

struct Server {
    address: SocketAddr,
    answers: Mutex<VecDeque<Vec<u8>>>,
    over: AtomicBool,
}

impl Server {
    fn pull(&self) -> Option<()> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = Options {
            credentials: "user:secret".parse().ok(),
            authfile: None,
            cert_dir: None,
            verify: Verify::No,
            max_bytes: MAX_BYTES,
            patience: Patience {
                connect: Duration::from_secs(1),
                answer: Duration::from_secs(1),
                pause: Duration::from_millis(1),
                longest_pause: Duration::from_millis(1),
                attempts: 2,
                ..Patience::default()
            },
        };
        let access = Access::configured(options, |_| None).ok()?;
        let name = format!("{}/test/image", self.address).parse().ok()?;
        let found = access.find(&name, "amd64").ok()?;
        let _ = found.digest().to_string();
        let layout = folder.path().join("layout");
        std::fs::create_dir(&layout).expect("a folder");
        let blobs = Blobs::new(folder.path().join("blobs"));
        found
            .fetch(&blobs, &layout, &|_| false, &|step| {
                assert!(step.bytes_total <= MAX_BYTES);
            })
            .ok()?;
        for digest in found.blobs() {
            let blob =
                std::fs::read(layout.join(digest.blob_path())).expect("a blob that was fetched");
            assert_eq!(Digest::of(digest.algorithm(), &blob), digest);
        }
        Some(())
    }

    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            // A client that goes away does no harm.
            let _ = self.answer(&stream);
        }
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        // TLS begins with this byte.
        if reader.fill_buf()?.first() == Some(&0x16) {
            return Ok(());
        }
        let mut first = String::new();
        let mut length = 0;
        reader.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(said) = line.strip_prefix("content-length: ") {
                length = said.parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        let answer = match first.starts_with("GET /v2/ ") {
            true => Some(Vec::new()),
            false => self
                .answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front(),
        };
        let answer = answer.unwrap_or_else(|| b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec());
        stream.write_all(&self.framed(&answer))
    }

    fn framed(&self, answer: &[u8]) -> Vec<u8> {
        if !answer.starts_with(b"HTTP/") {
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            return [head.as_bytes(), answer].concat();
        }
        let mut framed = Vec::new();
        let mut rest = answer;
        while let Some(at) = rest
            .windows(HOST.len())
            .position(|window| window == HOST.as_bytes())
        {
            framed.extend_from_slice(&rest[..at]);
            framed.extend_from_slice(self.address.to_string().as_bytes());
            rest = &rest[at + HOST.len()..];
        }
        framed.extend_from_slice(rest);
        framed
    }
}

/// A pull with a token and a redirect, one through an index, and refusals.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let described = |kind: &str, bytes: &[u8]| {
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(),
            "digest": Digest::of(Algorithm::Sha256, bytes).to_string()})
    };
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    let layer = "a layer";
    let manifest =
        json!({"schemaVersion": 2, "config": described("config.v1+json", config.as_bytes()),
        "layers": [described("layer.v1.tar", layer.as_bytes())]})
        .to_string();
    let mut inner = described("manifest.v1+json", manifest.as_bytes());
    inner["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [inner]}).to_string();
    let answers = |parts: &[&str]| parts.join("\0").into_bytes();
    let challenge = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://@HOST@/token\",service=\"s\",scope=\"repository:test/image:pull\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://@HOST@/elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let basic = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let busy = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nconnection: close\r\n\r\n{\"errors\":[{\"code\":\"A\",\"message\":\"b\"}]}";
    let denied = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"details\":\"no\"}";
    let token = r#"{"token":"t","expires_in":60,"issued_at":"2020-01-01T00:00:00Z"}"#;
    vec![
        answers(&[challenge, token, &manifest, &config, redirect, layer]),
        answers(&[basic, &index, &manifest, &config, layer]),
        answers(&[busy, &manifest, busy, &config, denied]),
        answers(&[challenge, denied]),
        answers(&[r#"{"schemaVersion":1,"fsLayers":[]}"#]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_pulled_but_those_that_refuse() {
        let pulled: Vec<_> = seeds().iter().map(|seed| pulled(seed).is_some()).collect();
        assert_eq!(pulled, [true, true, false, false, false]);
    }
}
