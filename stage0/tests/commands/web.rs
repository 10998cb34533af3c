//! A web that answers for every host name: an HTTP proxy on loopback that is all servers behind it, with TLS by an
//! authority of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Scheme, host and path, with the query.
    pub url: String,
    /// The lines of the header, in lower case.
    pub header: Vec<String>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Writes the whole answer, or whatever it likes.
type Answer = dyn Fn(&Request, &mut dyn Write) + Send + Sync;

/// The web of one test.
pub struct Web {
    address: SocketAddr,
    folder: PathBuf,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Web {
    /// A web whose certificates lie in `folder`.
    pub fn new(
        folder: &Path,
        answer: impl Fn(&Request, &mut dyn Write) + Send + Sync + 'static,
    ) -> Self {
        let tls = Arc::new(certificates(folder));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, answer, seen) =
                    (Arc::clone(&tls), Arc::clone(&answer), Arc::clone(&seen));
                // Clients that go away in the middle are some of the tests.
                std::thread::spawn(move || serve(stream, &tls, &*answer, &seen));
            }
        });
        Self {
            address,
            folder: folder.to_owned(),
            requests,
        }
    }

    /// Where it listens; asked there by a path alone, it is a server of that path.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `command` see this web, and trust its certificates.
    pub fn seen_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let proxy = format!("http://{}", self.address);
        command
            .env("http_proxy", &proxy)
            .env("https_proxy", &proxy)
            .env_remove("no_proxy")
            .env_remove("NO_PROXY")
            .env("SSL_CERT_FILE", self.folder.join("ca.pem"))
    }

    /// The URLs that have been asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        let taken = std::mem::take(&mut *self.requests.lock().expect("requests"));
        taken.into_iter().map(|request| request.url).collect()
    }
}

/// An answer with a length.
pub fn ok(to: &mut dyn Write, more: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        body.len()
    );
    send(to, &[head.as_bytes(), body]);
}

/// An answer without a body.
pub fn status(to: &mut dyn Write, line: &str) {
    send(
        to,
        &[format!("HTTP/1.1 {line}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes()],
    );
}

/// Writes all of this, if it is still wanted.
pub fn send(to: &mut dyn Write, parts: &[&[u8]]) {
    for part in parts {
        if to.write_all(part).is_err() {
            return;
        }
    }
    let _ = to.flush();
}

/// A key for all hosts of these tests, with a certificate of an authority of their own.
fn certificates(folder: &Path) -> ServerConfig {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=test -days 2 2>/dev/null &&
        openssl req -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=example.com 2>/dev/null &&
        printf 'subjectAltName=DNS:example.com,DNS:store.example.com' >ext &&
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem 2>/dev/null";
    fs::create_dir_all(folder).expect("a folder");
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(folder)
        .status();
    assert!(
        made.expect("sh starts").success(),
        "openssl makes certificates"
    );
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem")).expect("a certificate");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate")
}

fn serve(
    mut stream: TcpStream,
    tls: &Arc<ServerConfig>,
    answer: &Answer,
    seen: &Mutex<Vec<Request>>,
) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let request = read_head(&mut stream)?;
    let (method, target) = request.0.split_once(' ')?;
    if method != "CONNECT" {
        return respond(target, request.1, &mut stream, answer, seen);
    }
    let host = target.split(':').next()?.to_owned();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let connection = ServerConnection::new(Arc::clone(tls)).ok()?;
    let mut stream = StreamOwned::new(connection, stream);
    let (line, header) = read_head(&mut stream)?;
    let path = line.split(' ').nth(1)?;
    respond(
        &format!("https://{host}{path}"),
        header,
        &mut stream,
        answer,
        seen,
    )
}

/// Each connection has one answer, so that a broken one breaks nothing else.
fn respond(
    target: &str,
    header: Vec<String>,
    stream: &mut impl Write,
    answer: &Answer,
    seen: &Mutex<Vec<Request>>,
) -> Option<()> {
    let url = target.split(' ').next()?.to_owned();
    let request = Request { url, header };
    seen.lock().ok()?.push(request.clone());
    answer(&request, stream);
    stream.flush().ok()
}

/// The first line without the version, and the others.
fn read_head(stream: &mut impl Read) -> Option<(String, Vec<String>)> {
    let mut head = Vec::new();
    // Byte by byte, as what follows may be TLS.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let mut lines = BufReader::new(&head[..]).lines().map_while(Result::ok);
    let first = lines.next()?;
    Some((
        first.trim_end_matches(" HTTP/1.1").to_owned(),
        lines.map(|line| line.to_lowercase()).collect(),
    ))
}
