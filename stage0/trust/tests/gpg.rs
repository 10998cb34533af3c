//! Signatures and keys made by GnuPG: good ones are taken, all others refused with the reason.

mod gnupg;

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use trust::{Certificate, Keys, Scope, Signer, verify};

const CONTENT: &[u8] = b"an image\n";
const LONG_AGO: &str = "20200101T000000";

/// A GnuPG home with keys of its own.
struct Gpg(gnupg::Home);

impl Gpg {
    fn new() -> Self {
        Self(gnupg::Home::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Vec<u8> {
        self.0.run(words, b"")
    }

    /// A new key and its fingerprint.
    fn key(&self, user: &str, algorithm: &str, more: &[&str]) -> String {
        let words = ["--quick-generate-key", user, algorithm, "sign", "never"];
        self.run(&[more, &words].concat());
        let listed = self.run(&["--with-colons", "--list-keys", user]);
        let listed = String::from_utf8(listed).expect("text");
        let line = listed
            .lines()
            .find(|line| line.starts_with("fpr:"))
            .expect("a fingerprint");
        line.split(':').nth(9).expect("a field").to_lowercase()
    }

    fn export(&self, key: &str) -> Vec<u8> {
        self.run(&["--armor", "--export", key])
    }

    fn certificates(&self, key: &str) -> Vec<Certificate> {
        Certificate::read_all(&self.export(key)).expect("a key")
    }

    fn sign(&self, key: &str, more: &[&str]) -> Vec<u8> {
        let file = self.path("content");
        fs::write(&file, CONTENT).expect("a file");
        let words = [
            "--local-user",
            key,
            "--output",
            "-",
            "--detach-sign",
            file.to_str().expect("text"),
        ];
        self.run(&[more, &words].concat())
    }
}

fn check(trusted: &[Certificate], signature: &[u8]) -> Result<Signer, String> {
    verify(
        trusted,
        signature,
        &mut Cursor::new(CONTENT),
        SystemTime::now(),
    )
    .map_err(|error| format!("{error:#}"))
}

#[track_caller]
fn refused(trusted: &[Certificate], signature: &[u8], reason: &str) {
    let error = check(trusted, signature).expect_err("refused");
    assert!(error.contains(reason), "{reason:?} not in: {error}");
}

#[test]
fn signature_by_a_trusted_key_is_good_in_both_forms() {
    let gpg = Gpg::new();
    for algorithm in ["ed25519", "rsa2048", "nistp256"] {
        let key = gpg.key(&format!("{algorithm} <a@example.com>"), algorithm, &[]);
        let trusted = gpg.certificates(&key);
        for form in [&["--armor"][..], &[], &["--digest-algo=SHA512"]] {
            let signer = check(&trusted, &gpg.sign(&key, form)).expect(algorithm);
            assert_eq!(signer.fingerprint, key);
            assert_eq!(signer.users, [format!("{algorithm} <a@example.com>")]);
        }
    }
}

#[test]
fn signature_over_other_content_or_by_another_key_is_refused() {
    let gpg = Gpg::new();
    let (key, other) = (
        gpg.key("one", "ed25519", &[]),
        gpg.key("two", "ed25519", &[]),
    );
    let (signature, trusted) = (gpg.sign(&key, &["--armor"]), gpg.certificates(&key));
    let mut content = Cursor::new(b"another image\n");
    let error = verify(&trusted, &signature, &mut content, SystemTime::now()).expect_err("refused");
    assert!(
        format!("{error:#}").contains("does not fit the file"),
        "{error:#}"
    );
    refused(
        &gpg.certificates(&other),
        &signature,
        "not trusted for this image",
    );
    refused(&[], &signature, &key[key.len() - 16..]);
    // One good signature beside one by nobody known is enough.
    let both = [gpg.sign(&other, &[]), gpg.sign(&key, &[])].concat();
    assert!(check(&trusted, &both).is_ok());
}

#[test]
fn signature_that_is_none_is_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("one", "ed25519", &[]);
    let trusted = gpg.certificates(&key);
    let signature = gpg.sign(&key, &["--armor"]);
    refused(&trusted, b"", "signature");
    refused(&trusted, b"<html>404</html>", "signature");
    refused(&trusted, &gpg.export(&key), "not an OpenPGP signature");
    refused(&trusted, &signature[..signature.len() / 2], "signature");
    refused(&trusted, &vec![b'-'; 100 << 10], "more than 65536 bytes");
    let clear = gpg.run(&[
        "--clear-sign",
        "--output",
        "-",
        gpg.path("content").to_str().expect("text"),
    ]);
    refused(&trusted, &clear, "signature");
}

#[test]
fn weak_digest_is_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("one", "rsa2048", &[]);
    let trusted = gpg.certificates(&key);
    for digest in ["SHA1", "RIPEMD160"] {
        let signature = gpg.sign(
            &key,
            &["--allow-weak-digest-algos", "--digest-algo", digest],
        );
        refused(&trusted, &signature, "too weak");
    }
}

#[test]
fn expired_signature_and_key_are_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("one", "ed25519", &["--faked-system-time", LONG_AGO]);
    let forever = gpg.certificates(&key);
    let signature = gpg.sign(
        &key,
        &["--faked-system-time", LONG_AGO, "--default-sig-expire=1d"],
    );
    refused(&forever, &signature, "it has expired");
    let signature = gpg.sign(&key, &["--faked-system-time", LONG_AGO]);
    assert!(check(&forever, &signature).is_ok());
    gpg.run(&[
        "--faked-system-time",
        LONG_AGO,
        "--quick-set-expire",
        &key,
        "1y",
    ]);
    refused(&gpg.certificates(&key), &signature, "has expired");
    // What was said last counts.
    gpg.run(&["--quick-set-expire", &key, "10y"]);
    assert!(check(&gpg.certificates(&key), &signature).is_ok());
    let past = SystemTime::now() - Duration::from_secs(48 * 3600);
    let recent = gpg.sign(&key, &[]);
    let error = verify(&forever, &recent, &mut Cursor::new(CONTENT), past).expect_err("refused");
    assert!(format!("{error:#}").contains("in the future"), "{error:#}");
}

#[test]
fn revoked_key_and_subkey_are_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("one", "ed25519", &[]);
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "1y"]);
    let signature = gpg.sign(&key, &[]);
    let trusted = gpg.certificates(&key);
    assert!(check(&trusted, &signature).is_ok());
    let certificate =
        fs::read_to_string(gpg.path(&format!("openpgp-revocs.d/{}.rev", key.to_uppercase())));
    let certificate = certificate
        .expect("a revocation")
        .replace("\n:-----", "\n-----");
    fs::write(gpg.path("rev"), certificate).expect("a file");
    gpg.run(&["--import", gpg.path("rev").to_str().expect("text")]);
    refused(&gpg.certificates(&key), &signature, "revoked");
}

#[test]
fn subkey_that_may_not_sign_is_refused() {
    let gpg = Gpg::new();
    let key = gpg.key("one", "ed25519", &[]);
    gpg.run(&["--quick-add-key", &key, "ed25519", "auth", "1y"]);
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "1y"]);
    let trusted = gpg.certificates(&key);
    // GnuPG signs with the subkey; what was bound to sign counts, and only with a primary key that knows of it.
    let signature = gpg.sign(&key, &[]);
    assert_eq!(check(&trusted, &signature).expect("good").fingerprint, key);
    let other = gpg.certificates(&gpg.key("two", "ed25519", &[]));
    refused(&other, &signature, "not trusted");
}

fn names(keys: &Keys, image: &str) -> Vec<String> {
    let found = keys.for_image(image).expect("keys");
    found.iter().flat_map(Certificate::users).collect()
}

#[test]
fn keys_are_trusted_for_their_prefix_and_masked_by_empty_files() {
    let gpg = Gpg::new();
    let [system, local] = ["system", "local"].map(|name| gpg.path(name));
    let keys = Keys::new(vec![system.clone(), local.clone()]);
    let add = |into: &Path, scope: &Scope, user: &str| {
        let key = gpg.key(user, "ed25519", &[]);
        let added = Keys::add(into, scope, &gpg.certificates(&key)[0]).expect("added");
        assert!(!added.known);
        assert!(
            Keys::add(into, scope, &gpg.certificates(&key)[0])
                .expect("added")
                .known
        );
        added.path
    };
    let prefix = |name: &str| Scope::Prefix(name.to_owned());
    let root = add(&system, &Scope::Root, "root");
    let etcd = add(&local, &prefix("example.com/etcd"), "etcd");
    add(&system, &prefix("example.com"), "domain");
    let parent = etcd.parent().expect("a folder");
    assert_eq!(parent, local.join("trustedkeys/prefix.d/example.com/etcd"));
    assert_eq!(names(&keys, "example.org/x"), ["root"]);
    let mut found = names(&keys, "example.com/etcd");
    found.sort();
    assert_eq!(found, ["domain", "etcd", "root"]);
    assert_eq!(names(&keys, "example.com/etcd/sub").len(), 3);
    // Half a part of a name is no prefix.
    assert_eq!(names(&keys, "example.com/etcd2").len(), 2);
    let mask = local.join("trustedkeys/root.d");
    fs::create_dir_all(&mask).expect("a folder");
    fs::write(mask.join(root.file_name().expect("a name")), "").expect("a mask");
    assert!(names(&keys, "example.org/x").is_empty());
    assert!(keys.for_image("../etc").is_err());
}

#[test]
fn key_file_that_is_damaged_or_misnamed_is_named() {
    let gpg = Gpg::new();
    let folder = gpg.path("local/trustedkeys/root.d");
    fs::create_dir_all(&folder).expect("a folder");
    let keys = Keys::new(vec![gpg.path("local")]);
    let key = gpg.key("one", "ed25519", &[]);
    let wrong = "0".repeat(40);
    for content in [gpg.export(&key), b"rubbish".to_vec()] {
        fs::write(folder.join(&wrong), content).expect("a file");
        let error = format!(
            "{:#}",
            keys.for_image("example.com/x").expect_err("refused")
        );
        assert!(error.contains(&wrong), "{error}");
    }
    fs::remove_file(folder.join(&wrong)).expect("removed");
    fs::write(folder.join("README"), "not a key").expect("a file");
    assert!(names(&keys, "example.com/x").is_empty());
}

#[test]
fn keys_of_files_put_one_behind_the_other_are_all_read() {
    let gpg = Gpg::new();
    let keys = ["a@example.com", "b@example.com"].map(|user| gpg.key(user, "ed25519", &[]));
    let armored = keys.each_ref().map(|key| gpg.export(key)).concat();
    let plain = gpg.run(&["--export"]);
    for file in [armored, plain] {
        let read = Certificate::read_all(&file).expect("two keys");
        let mut read: Vec<_> = read.iter().map(Certificate::fingerprint).collect();
        read.sort();
        let mut keys = keys.to_vec();
        keys.sort();
        assert_eq!(read, keys);
    }
}
