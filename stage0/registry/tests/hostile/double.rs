//! A registry that answers each request as its test wants. One thread a connection, one answer a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Bytes of a request's body that are kept.
const KEPT_BYTES: u64 = 4096;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    /// The first bytes of what came with it.
    pub body: Vec<u8>,
    /// How many came for the same path before.
    pub before: usize,
}

impl Request {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first byte asked for by `Range`.
    pub fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

/// How a body comes.
#[derive(Clone, Debug)]
pub enum Body {
    /// All of it, its length said.
    Whole(Vec<u8>),
    /// All of it, and its length is not said.
    Unmeasured(Vec<u8>),
    /// Less than is said.
    Broken { bytes: Vec<u8>, said: usize },
    /// This over and over, until nobody reads.
    Endless(Vec<u8>),
    /// This, and then nothing, until nobody waits.
    Stalled(Vec<u8>),
    /// A byte at a time, with this between, until nobody waits.
    Trickle(Duration),
    /// Not even a status, until nobody waits.
    Silent,
    /// The end of the connection at once.
    Lost,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::of(status, Body::Whole(body.into()))
    }

    pub fn of(status: u16, body: Body) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Behaviour = dyn Fn(&Request) -> Answer + Send + Sync;

/// A registry that lives as long as its test's process.
pub struct Double {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Double {
    /// One that answers so.
    pub fn new(behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (behaviour, seen): (Arc<Behaviour>, _) = (Arc::new(behaviour), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaviour, seen) = (Arc::clone(&behaviour), Arc::clone(&seen));
                // A client that goes away is what most tests are about.
                thread::spawn(move || serve(&stream, &seen, behaviour.as_ref()).ok());
            }
        });
        Self { address, requests }
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// All requests so far but the ones that ask whether anybody is there.
    pub fn requests(&self) -> Vec<Request> {
        let requests = self.requests.lock().expect("a lock").clone();
        requests
            .into_iter()
            .filter(|request| request.path != "/v2/")
            .collect()
    }

    /// How many requests came for paths that end so.
    pub fn count(&self, end: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.path.ends_with(end))
            .count()
    }
}

fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    behaviour: &Behaviour,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    // TLS begins with this byte: whoever speaks it is to learn at once that nobody does here.
    if reader.fill_buf()?.first() == Some(&0x16) {
        return Ok(());
    }
    let Some(mut request) = read(&mut reader)? else {
        return Ok(());
    };
    if request.path == "/v2/" && request.header("authorization").is_none() {
        return write(stream, &Answer::new(200, ""));
    }
    {
        let mut seen = seen.lock().expect("a lock");
        request.before = seen
            .iter()
            .filter(|known| known.path == request.path)
            .count();
        seen.push(request.clone());
    }
    write(stream, &behaviour(&request))
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        before: 0,
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        request
            .headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = request.header("content-length").unwrap_or("0").parse();
    let mut rest = reader.take(length.expect("a length"));
    rest.by_ref()
        .take(KEPT_BYTES)
        .read_to_end(&mut request.body)?;
    io::copy(&mut rest, &mut io::sink())?;
    Ok(Some(request))
}

fn write(mut stream: &TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} Something\r\nConnection: close\r\n",
        answer.status
    );
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let said = match &answer.body {
        Body::Whole(bytes) => Some(bytes.len()),
        Body::Broken { said, .. } => Some(*said),
        _ => None,
    };
    head += &said.map_or_else(String::new, |said| format!("Content-Length: {said}\r\n"));
    if !matches!(answer.body, Body::Silent | Body::Lost) {
        stream.write_all(head.as_bytes())?;
        stream.write_all(b"\r\n")?;
    }
    match &answer.body {
        Body::Whole(bytes) | Body::Unmeasured(bytes) | Body::Broken { bytes, .. } => {
            stream.write_all(bytes)
        }
        Body::Endless(bytes) => loop {
            stream.write_all(bytes)?;
        },
        Body::Stalled(bytes) => {
            stream.write_all(bytes)?;
            gone(stream)
        }
        Body::Silent => gone(stream),
        Body::Lost => Ok(()),
        Body::Trickle(pause) => {
            stream.set_read_timeout(Some(*pause))?;
            // Its end wakes this, or else the time.
            while stream.read(&mut [0]).is_err() {
                stream.write_all(b"x")?;
            }
            Ok(())
        }
    }
}

/// Waits until the client has gone.
fn gone(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0]).map(drop)
}
