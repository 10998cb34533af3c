//! Keys, signatures and policies. Input: a byte that says what the rest is.

use std::io::Cursor;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use trust::Certificate;
use trust::policy::{Attachment, Evidence, Place, Policy};

const KEYS: u8 = 0;
const DETACHED: u8 = 1;
const MESSAGE: u8 = 2;
const ATTACHED: u8 = 3;
const POLICY: u8 = 4;
/// Kinds of input.
const KINDS: u8 = 5;

/// What the detached signature of the seeds is of.
const CONTENT: &[u8] = b"content";
/// What the others of the seeds are of.
const MANIFEST: &[u8] = b"{}";
const NAME: &str = "example.com/x:1";

/// A key of Ed25519 by GnuPG, as base64, a detached signature and a message by it.
const KEY: &str = "mDMEawltlRYJKwYBBAHaRw8BAQdAAQ6wtPCWHjFJOwjN2wGddDwxHRsFNuF8mGZb0ZIE4Ve0EW1ha2VyQGV4YW1wbGUuY29tiJAEExYIADgWIQSBRYPI66Hvf1gYDHq1wfzGNHBb0gUCawltlQIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRC1wfzGNHBb0lQYAQDtFsDusuKFmFXJ3Rfl4K92DDI/GdcKD/TFflcqQCgmXgEAzMecGj5XhS3BCy4qVUp6jnS4Pq+UU+LWbiXSzHt+kAM=";
const SIGNATURE: &str = "887504001608001d162104814583c8eba1ef7f58180c7ab5c1fcc634705bd205026b096d95000a0910b5c1fcc634705bd2ef1e0100dddee61a7dc1d9a9a23fa1cfa3d1356e16854cc4a6b4c5bebe6a568ca4818e170100fad9a49bc212f945dc9990f355b4dfdf1378eb71619ceeb3cbcb7e97d412e906";
const SIGNED: [&str; 2] = [
    "a3019bc0cbccc021b6f5e09f632605d19718d7bc4fe24ace49ccccd5cb2acecfcbe6cc9d5aad945c945992999c98a36455ad54525990aa64a59458929f9b99ac909c9f57929899975aa4509c999e9758525a94aaa4a394999b989e0a529c929f9c9d5aa49b9b989799965a5ca29b92990ea480da8b33128d4ccdac4c4c0c8dcdd2128d4d4d938ccdcc2d120d0d4dcc12530ccdd2cc532dcc4c2c532d4dd2924cd2928d0cd352cd8142c68606c9066606696686c98989696916894ab540cb5252f34a324b2a91ec2b4a4d4b2d4acd4b063934b52231b72027552f393f57bfc2ca50a916a825bfa024333f0fec9fdada8e521606310e065931459646d7e613af17beaf8f90e0a98205082b13280c18b83805602277f518fe29bdd14f7dc9a8e5cba4eb61c1b2339ffdfadabbbb8f2e0999f66ea257aed3416b6946865ef1be4d26f703f51caf4cefeadefad8dffe8aa7fa7ef37b09b76aa66e8ffde2c80a00",
    "900d03000816b5c1fcc634705bd201acef620a636c61696d2e6a736f6e6b096d957b22637269746963616c223a7b2274797065223a2261746f6d696320636f6e7461696e6572207369676e6174757265222c22696d616765223a7b22646f636b65722d6d616e69666573742d646967657374223a227368613235363a34343133366661333535623336373861313134366164313666376538363439653934666234666332316665373765383331306330363066363163616166663861227d2c226964656e74697479223a7b22646f636b65722d7265666572656e6365223a226578616d706c652e636f6d2f783a31227d7d2c226f7074696f6e616c223a7b7d7d887504001608001d162104814583c8eba1ef7f58180c7ab5c1fcc634705bd205026b096d95000a0910b5c1fcc634705bd2dd2e00fe22ec2f65e9012a4d022d483804b96f07d7adddbbc5a45496ee914a6d42c13b1b01008d178eb234df512e41d4978a8bb5e34f3fd44927bf37de60da7c95b75df44105",
];

/// A key of ECDSA by openssl, in PEM as base64, and a signature by it.
const SIGSTORE_KEY: &str = "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0KTUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowREFRY0RRZ0FFdzdzZ0dJQXJyTjRaN21UUDBqZHJJY09HQ1VZbworYWQ5azZhOFJyMzdORU1lNENTUWNvWkR2NkhUREZsWnowbWdnSHNwMVlXQ2lVWmtYK0pPc2dPYkd3PT0KLS0tLS1FTkQgUFVCTElDIEtFWS0tLS0tCg==";
const SIGSTORE_SIGNATURE: &str = "30440220388511a1b712c780be1e89e075309a1b5fc169fd638b76a52b32ca86e66f536702203f4be913386f5ab4b3b47d861faf4f6727aa2b72a508585e48eb0c3210f8b852";
const SIGSTORE_PAYLOAD: &str = r#"{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"identity":{"docker-reference":"example.com/x:1"}},"optional":null}"#;

/// Judges what the input is.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % KINDS {
        KEYS => keys(rest),
        DETACHED => detached(rest),
        MESSAGE => drop(judged(&policy(), &[rest.to_vec()], &[])),
        ATTACHED => {
            let mut parts = rest.splitn(2, |byte| *byte == 0);
            let payload = parts.next().unwrap_or_default().to_vec();
            let signature = parts.next().unwrap_or_default().to_vec();
            judged(&policy(), &[], &[Attachment { payload, signature }]);
        }
        _ => {
            if let Ok(policy) = Policy::parse(Path::new("policy.json"), rest) {
                let message = hex::decode(SIGNED[0]).expect("a seed");
                judged(&policy, &[message], &[]);
            }
        }
    }
}

fn keys(input: &[u8]) {
    let Ok(certificates) = Certificate::read_all(input) else {
        return;
    };
    let signature = hex::decode(SIGNATURE).expect("a seed");
    let _ = trust::verify(
        &certificates,
        &signature,
        &mut Cursor::new(CONTENT),
        SystemTime::now(),
    );
    for certificate in certificates {
        assert!(certificate.fingerprint().len() >= 32, "{certificate}");
        assert!(
            certificate
                .users()
                .iter()
                .flat_map(|user| user.chars())
                .all(|c| !c.is_control())
        );
        if let Ok(text) = certificate.armored() {
            Certificate::read_all(&text).expect("what was written can be read");
        }
    }
}

fn detached(input: &[u8]) {
    let key = trusted();
    let other = trust::verify(&key, input, &mut Cursor::new(b"other"), SystemTime::now());
    assert!(other.is_err(), "a signature over something else");
    let _ = trust::verify(&key, input, &mut Cursor::new(CONTENT), SystemTime::now());
}

fn trusted() -> Vec<Certificate> {
    Certificate::read_all(&trust_key()).expect("a seed")
}

fn trust_key() -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(KEY)
        .expect("a seed")
}

/// A policy that wants either kind of signature: one in each scope.
fn policy() -> Policy {
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": KEY}]);
    let attached = json!([{"type": "sigstoreSigned", "keyData": SIGSTORE_KEY}]);
    let policy = json!({"default": attached, "transports": {"docker": {"example.com": signed}}});
    Policy::parse(Path::new("policy.json"), policy.to_string().as_bytes()).expect("a seed")
}

/// How many of a few places' images are taken with these signatures. For another manifest they never speak.
fn judged(policy: &Policy, simple: &[Vec<u8>], sigstore: &[Attachment]) -> usize {
    let name = NAME.parse().expect("a name");
    let places = [
        Place::registry(&name),
        Place::layout(Path::new("/a/b"), false),
        Place::docker_archive(),
    ];
    let judge = |place, manifest| {
        policy.demands(place).judge(&Evidence {
            manifest,
            name: Some(&name),
            simple,
            sigstore,
            now: SystemTime::now(),
        })
    };
    for place in &places {
        let vouchers = judge(place, b"another");
        assert!(vouchers.is_ok_and(|by| by.is_empty()) || judge(place, b"another").is_err());
    }
    places
        .iter()
        .filter(|place| judge(place, MANIFEST).is_ok())
        .count()
}

/// One of each kind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let bytes = |text: &str| hex::decode(text).expect("a seed");
    let armored = trusted()[0].armored().expect("a key");
    let attached = [
        SIGSTORE_PAYLOAD.as_bytes(),
        &[0],
        &bytes(SIGSTORE_SIGNATURE),
    ]
    .concat();
    let policy = json!({"default": [{"type": "reject"}], "transports": {
        "oci": {"/a": [{"type": "insecureAcceptAnything"}]},
        "docker": {"*.com": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": KEY,
            "signedIdentity": {"type": "remapIdentity", "prefix": "example.com", "signedPrefix": "example.com"}}],
            "": [{"type": "sigstoreSigned", "keyDatas": [SIGSTORE_KEY], "signedIdentity": {"type": "matchRepository"}}]}}});
    vec![
        of(KEYS, &trust_key()),
        of(KEYS, &armored),
        of(DETACHED, &bytes(SIGNATURE)),
        of(MESSAGE, &bytes(SIGNED[0])),
        of(MESSAGE, &bytes(SIGNED[1])),
        of(ATTACHED, &attached),
        of(POLICY, policy.to_string().as_bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_good_signatures() {
        for signed in SIGNED {
            let message = hex::decode(signed).expect("a seed");
            assert_eq!(judged(&policy(), &[message], &[]), 1);
        }
        let attachment = Attachment {
            payload: SIGSTORE_PAYLOAD.into(),
            signature: hex::decode(SIGSTORE_SIGNATURE).expect("a seed"),
        };
        assert_eq!(judged(&policy(), &[], &[attachment]), 2);
    }
}
