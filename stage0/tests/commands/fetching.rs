//! App Container images on servers of a test, and a host that fetches them.

use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::recorder::{Host, RECORD};
use crate::signer::Signer;
use crate::web::{Request, Web, ok, send, status};

/// An ACI called `example.com/NAME`, version 1, with one file of its name; its manifest with `more` in it.
pub fn aci(name: &str, more: &Value) -> Vec<u8> {
    archive(name, more, &[(name, &[b'x'; 300_000])])
}

/// The same with these files.
pub fn archive(name: &str, more: &Value, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut manifest = json!({"acKind": "ImageManifest", "acVersion": "0.8.11", "name": format!("example.com/{name}"),
        "labels": [{"name": "version", "value": "1"}], "app": {"exec": ["/x"], "user": "0", "group": "0"}});
    let more = more.as_object().expect("an object").clone();
    manifest.as_object_mut().expect("an object").extend(more);
    let manifest = manifest.to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let files = files
        .iter()
        .map(|(name, content)| (format!("rootfs/{name}"), *content));
    for (path, content) in
        std::iter::once(("manifest".to_owned(), manifest.as_bytes())).chain(files)
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content)
            .expect("an entry");
    }
    tar.into_inner().expect("an ACI")
}

/// Leads from names to images, and to keys.
pub const PAGE: &str = r#"<html><head>
    <meta name="ac-discovery" content="example.com https://store.example.com/{name}-{version}.{ext}">
    <meta name="ac-discovery-pubkeys" content="example.com https://store.example.com/keys"></head></html>"#;

/// What servers have, by URL.
pub type Files = HashMap<String, Vec<u8>>;

/// Images with their signatures and the page that leads to them, by URL.
pub fn signed(signer: &Signer, images: &[(&str, Value)]) -> Files {
    let images = images.iter().map(|(name, more)| (*name, aci(name, more)));
    serving(signer, images.collect())
}

/// The same of archives.
pub fn serving(signer: &Signer, images: Vec<(&str, Vec<u8>)>) -> Files {
    let mut files = Files::new();
    files.insert("https://example.com?ac-discovery=1".into(), PAGE.into());
    files.insert("https://example.com/?ac-discovery=1".into(), PAGE.into());
    files.insert("https://store.example.com/keys".into(), signer.public());
    for (name, image) in images {
        let url = format!("https://store.example.com/example.com/{name}-1.aci");
        files.insert(format!("{url}.asc"), signer.sign(&image));
        files.insert(url, image);
    }
    files
}

/// Serves files with a mark for each, and 404 for all else.
pub fn serve(files: Files) -> impl Fn(&Request, &mut dyn Write) + Send + Sync {
    move |request, to| match files.get(&request.url) {
        Some(_) if request.header("if-none-match") == Some("\"mark\"") => {
            send(to, &[b"HTTP/1.1 304 Not Modified\r\n\r\n"]);
        }
        Some(body) => ok(to, "etag: \"mark\"\r\n", body),
        None => status(to, "404 Not Found"),
    }
}

/// A host that sees a web of its own.
pub struct Bench {
    pub host: Host,
    pub web: Web,
}

impl Bench {
    /// With a web that answers so.
    pub fn new(answer: impl Fn(&Request, &mut dyn Write) + Send + Sync + 'static) -> Self {
        let host = Host::new(RECORD);
        let web = Web::new(&host.path("tls"), answer);
        Self { host, web }
    }

    /// A web with these images, by a signer who is trusted.
    pub fn trusting(images: &[(&str, Value)]) -> (Self, Signer) {
        let signer = Signer::new();
        let bench = Self::new(serve(signed(&signer, images)));
        bench.trust(&signer);
        (bench, signer)
    }

    /// Trusts its key for all images of these tests.
    pub fn trust(&self, signer: &Signer) {
        let key = signer.key();
        let words = [
            "trust",
            "--prefix=example.com",
            "--skip-fingerprint-review",
            key.to_str().expect("text"),
        ];
        let trusted = self.run(&words);
        assert!(trusted.status.success(), "{trusted:?}");
        self.web.asked();
    }

    /// `fairing` with these words, not started.
    pub fn command(&self, words: &[&str]) -> Command {
        let local = format!("--local-config={}", self.host.path("config").display());
        let mut command = self.host.command(&[&[local.as_str()], words].concat());
        self.web.seen_by(&mut command);
        command
    }

    /// Output of `fairing` with these words.
    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("fairing starts")
    }

    /// The id of what is pulled.
    #[track_caller]
    pub fn fetched(&self, words: &[&str]) -> String {
        let output = self.run(&[&["image", "pull"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// Fails unless it fails for this reason, and nothing has come into the store.
    #[track_caller]
    pub fn refused(&self, words: &[&str], reason: &str) {
        let output = self.run(&[&["image", "pull"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(254), "{said}");
        assert!(said.contains(reason), "{reason:?} not in: {said}");
        assert_eq!(
            self.host.stdout(&["image", "list", "--format=json"]),
            "[]\n"
        );
    }
}
