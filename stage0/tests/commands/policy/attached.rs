//! Sigstore's signatures, made by openssl and put into the registry as cosign and podman put them. Debian's skopeo has been
//! made to refuse all of them, so there is no second verdict.

use std::fs;
use std::path::PathBuf;

use image::oci::{Algorithm, Digest};
use serde_json::{Value, json};

use super::bench::{Bench, accepted};
use crate::recorder::refused;
use crate::registry::Layout;

const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A document with its signature, as they are attached.
struct Attached {
    media_type: &'static str,
    payload: Vec<u8>,
    signature: String,
}

/// Makes a key of ECDSA; gives the paths of both parts.
fn key(bench: &Bench, name: &str, curve: &str) -> (PathBuf, PathBuf) {
    let paths = ["key", "pub"].map(|part| bench.host.path(&format!("{name}.{part}")));
    let script = r#"openssl genpkey -algorithm EC -pkeyopt "ec_paramgen_curve:$3" -out "$1" && openssl pkey -in "$1" -pubout -out "$2""#;
    let [private, public] = &paths;
    let words = [private, public].map(|path| path.to_str().expect("a name of ours"));
    bench
        .registry
        .run(&["bash", "-c", script, "bash", words[0], words[1], curve]);
    let [private, public] = paths;
    (private, public)
}

fn claim(name: &str, digest: &str) -> Value {
    json!({"critical": {
            "type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": name},
        }, "optional": null})
}

fn signed(bench: &Bench, private: &std::path::Path, claim: &Value) -> Attached {
    let file = bench.host.path("payload");
    let payload = claim.to_string().into_bytes();
    fs::write(&file, &payload).expect("a file");
    let script = r#"openssl dgst -sha256 -sign "$1" "$2" | base64 -w0"#;
    let words = [private, &file].map(|path| path.to_str().expect("a name of ours"));
    let signature = bench
        .registry
        .run(&["bash", "-c", script, "bash", words[0], words[1]]);
    Attached {
        media_type: PAYLOAD_TYPE,
        payload,
        signature,
    }
}

/// Attaches these to `tool:1`, instead of what was attached before.
fn attach(bench: &Bench, attached: &[Attached]) {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = Layout::new(folder.path().join("layout"));
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(Algorithm::Sha256, bytes).to_string();
        let path = layout.path.join("blobs").join(digest.replace(':', "/"));
        fs::write(path, bytes).expect("a blob");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layers = attached.iter().map(|one| {
        let mut layer = blob(one.media_type, &one.payload);
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": one.signature});
        layer
    });
    let layers: Vec<_> = layers.collect();
    let config =
        json!({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    let top = blob(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    let tag = format!("{}.sig", bench.digest.replace(':', "-"));
    bench
        .registry
        .push(&layout.of(&top), &format!("tool:{tag}"));
}

fn signed_by(key: &std::path::Path, identity: &str) -> Value {
    json!([{"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": identity}}])
}

#[test]
fn attached_signature_counts_for_its_key_name_and_image_alone() {
    let bench = Bench::new();
    let (private, public) = key(&bench, "good", "P-256");
    let (other, other_public) = key(&bench, "other", "P-256");
    let (name, digest) = (bench.name("tool"), &bench.digest);
    let tagged = format!("{name}:1");
    let with = |one: Attached, change: &dyn Fn(&mut Attached)| {
        let mut one = one;
        change(&mut one);
        vec![one]
    };
    let good = || signed(&bench, &private, &claim(&tagged, digest));
    let zeros = format!("sha256:{}", "0".repeat(64));
    let mut wrong = Vec::new();
    for (what, attached, identity, taken) in [
        ("good", vec![good()], "matchRepoDigestOrExact", true),
        (
            "as cosign names it",
            vec![signed(&bench, &private, &claim(&name, digest))],
            "matchRepository",
            true,
        ),
        (
            "without a tag",
            vec![signed(&bench, &private, &claim(&name, digest))],
            "matchExact",
            false,
        ),
        (
            "other tag",
            vec![signed(
                &bench,
                &private,
                &claim(&format!("{name}:2"), digest),
            )],
            "matchExact",
            false,
        ),
        (
            "other digest",
            vec![signed(&bench, &private, &claim(&tagged, &zeros))],
            "matchExact",
            false,
        ),
        (
            "wrong key",
            vec![signed(&bench, &other, &claim(&tagged, digest))],
            "matchExact",
            false,
        ),
        (
            "second",
            vec![signed(&bench, &other, &claim(&tagged, digest)), good()],
            "matchExact",
            true,
        ),
        (
            "other document",
            with(good(), &|one| one.payload.push(b' ')),
            "matchExact",
            false,
        ),
        (
            "other type",
            with(good(), &|one| {
                one.media_type = "application/vnd.dsse.envelope.v1+json";
            }),
            "matchExact",
            false,
        ),
        (
            "no base64",
            with(good(), &|one| one.signature = "%".to_owned()),
            "matchExact",
            false,
        ),
        (
            "no signature",
            with(good(), &|one| one.signature = "aGVsbG8=".to_owned()),
            "matchExact",
            false,
        ),
        (
            "huge",
            with(good(), &|one| one.payload = vec![b' '; 5 << 20]),
            "matchExact",
            false,
        ),
        ("none", vec![], "matchExact", false),
    ] {
        attach(&bench, &attached);
        let policy = bench.requiring(&signed_by(&public, identity));
        let ours = bench.pull(&policy, &tagged);
        if ours.status.success() != taken {
            wrong.push(format!("{what}: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));

    attach(&bench, &[good()]);
    let policy = bench.requiring(&signed_by(&public, "matchExact"));
    assert!(accepted(&bench.pull(&policy, &tagged)).contains("is signed by sigstore key sha256:"));
    let either = json!([{"type": "sigstoreSigned", "keyPaths": [other_public, public]}]);
    accepted(&bench.pull(&bench.requiring(&either), &tagged));
    bench.configure(&json!({}));
    refused(&bench.pull(&policy, &tagged), "the image has none");
}

#[test]
fn key_that_is_not_supported_and_fulcio_are_refused_by_name() {
    let bench = Bench::new();
    let (_, public) = key(&bench, "large", "P-384");
    let image = bench.name("tool:1");
    let policy = bench.requiring(&signed_by(&public, "matchExact"));
    refused(
        &bench.pull(&policy, &image),
        "other keys of sigstore are not supported",
    );
    for field in ["fulcio", "rekorPublicKeyPath", "rekorPublicKeyData", "pki"] {
        let policy = json!([{"type": "sigstoreSigned", "keyPath": public, field: {}}]);
        let reason = format!("sigstoreSigned by {field}, which is not supported");
        refused(&bench.pull(&bench.requiring(&policy), &image), &reason);
    }
}
