//! Verdicts on OpenPGP signatures and on policies, each compared with skopeo's on the same registry, signatures and policy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::bench::{Bench, payload};
use crate::signer::{LONG_AGO, Signer};

/// One image with its signatures, and what is required of it.
struct Case {
    what: &'static str,
    signatures: Vec<Vec<u8>>,
    requirements: Value,
    /// What is pulled.
    image: String,
    taken: bool,
}

/// Who signs, and for what.
struct Signers {
    good: Signer,
    other: Signer,
    late: Signer,
    name: String,
    digest: String,
}

const SIGN: &[&str] = &["--sign"];

impl Signers {
    fn payload(&self, tag: &str) -> Vec<u8> {
        let name = format!("{}{tag}", self.name);
        payload(&name, &self.digest).to_string().into_bytes()
    }

    /// A message by the good key that claims the image under this tag.
    fn signed(&self, tag: &str) -> Vec<u8> {
        self.good.message(SIGN, &self.payload(tag))
    }

    fn signed_by(&self, more: Value) -> Value {
        let mut requirement =
            json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.good.key()});
        merge(&mut requirement, more);
        json!([requirement])
    }

    fn case(&self, what: &'static str, taken: bool, signatures: Vec<Vec<u8>>, more: Value) -> Case {
        Case {
            what,
            signatures,
            requirements: self.signed_by(more),
            image: format!("{}:1", self.name),
            taken,
        }
    }

    fn by_digest(&self, case: Case) -> Case {
        let image = format!("{}@{}", self.name, self.digest);
        Case { image, ..case }
    }
}

/// Puts `more` into an object; null takes a field out.
fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
        object.retain(|_, value| !value.is_null());
    }
}

fn identities(by: &Signers) -> Vec<Case> {
    let host = by.name.trim_end_matches("/tool").to_owned();
    let identity = |fields: Value| json!({"signedIdentity": fields});
    let exact = identity(json!({"type": "matchExact"}));
    let repository = identity(json!({"type": "matchRepository"}));
    let reference = |tag: &str| {
        let name = format!("vendor.example.com/x:{tag}");
        identity(json!({"type": "exactReference", "dockerReference": name}))
    };
    let of_repository =
        identity(json!({"type": "exactRepository", "dockerRepository": "vendor.example.com/x"}));
    let remap = |prefix: &str| {
        identity(
            json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": "vendor.example.com/x"}),
        )
    };
    let vendors = payload("vendor.example.com/x:1", &by.digest).to_string();
    let vendors = || vec![by.good.message(SIGN, vendors.as_bytes())];
    let remapped = payload("vendor.example.com/x/tool:1", &by.digest).to_string();
    let remapped = || vec![by.good.message(SIGN, remapped.as_bytes())];
    let (one, two) = (|| vec![by.signed(":1")], || vec![by.signed(":2")]);
    vec![
        by.case("exact", true, one(), exact.clone()),
        by.case("exact, other tag", false, two(), exact.clone()),
        by.by_digest(by.case("exact, by digest", false, one(), exact)),
        by.case("default, other tag", false, two(), json!({})),
        by.by_digest(by.case("default, by digest", true, two(), json!({}))),
        by.by_digest(by.case("default, no tag", false, vec![by.signed("")], json!({}))),
        by.case("repository, other tag", true, two(), repository.clone()),
        by.case(
            "repository, no tag",
            true,
            vec![by.signed("")],
            repository.clone(),
        ),
        by.case("repository, another", false, vendors(), repository),
        by.case("reference", true, vendors(), reference("1")),
        by.case("reference, other tag", false, vendors(), reference("2")),
        by.case("of repository", true, vendors(), of_repository.clone()),
        by.case("of repository, another", false, one(), of_repository),
        by.case("remapped host", true, remapped(), remap(&host)),
        by.case("remapped repository", true, vendors(), remap(&by.name)),
        by.case(
            "remapped other",
            false,
            vendors(),
            remap("elsewhere.example.com"),
        ),
        by.case("not remapped", true, one(), remap("elsewhere.example.com")),
    ]
}

fn signatures(by: &Signers) -> Vec<Case> {
    let good = || by.signed(":1");
    let claim = by.payload(":1");
    let of = |change: &dyn Fn(&mut Value)| {
        let mut payload = payload(&format!("{}:1", by.name), &by.digest);
        change(&mut payload);
        vec![by.good.message(SIGN, payload.to_string().as_bytes())]
    };
    let other_digest = format!("sha256:{}", "0".repeat(64));
    let case = |what, taken, signatures| by.case(what, taken, signatures, json!({}));
    let mut altered = good();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let both = [by.good.public(), by.other.public()].concat();
    vec![
        case("good", true, vec![good()]),
        case("none", false, vec![]),
        case("second", true, vec![by.other.message(SIGN, &claim), good()]),
        case("wrong key", false, vec![by.other.message(SIGN, &claim)]),
        case("altered", false, vec![altered]),
        case(
            "cut short",
            false,
            vec![good()[..good().len() - 9].to_vec()],
        ),
        case("no message", false, vec![b"\x90 no message".to_vec()]),
        case(
            "detached",
            false,
            vec![by.good.message(&["--detach-sign"], &claim)],
        ),
        case(
            "clear text",
            false,
            vec![by.good.message(&["--clear-sign"], &claim)],
        ),
        case(
            "not signed",
            false,
            vec![by.good.message(&["--store"], &claim)],
        ),
        case(
            "not compressed",
            true,
            vec![by.good.message(&["--sign", "-z0"], &claim)],
        ),
        case("huge", false, vec![vec![0x90; 5 << 20]]),
        case(
            "other digest",
            false,
            of(&|payload| {
                payload["critical"]["image"]["docker-manifest-digest"] =
                    other_digest.clone().into();
            }),
        ),
        case(
            "unknown member",
            false,
            of(&|payload| payload["critical"]["more"] = 1.into()),
        ),
        case(
            "other type",
            false,
            of(&|payload| payload["critical"]["type"] = "x".into()),
        ),
        case(
            "odd time",
            false,
            of(&|payload| payload["optional"]["timestamp"] = "x".into()),
        ),
        case(
            "more options",
            true,
            of(&|payload| payload["optional"]["more"] = "x".into()),
        ),
        by.case(
            "expired key",
            false,
            vec![
                by.late
                    .message(&["--faked-system-time", LONG_AGO, "--sign"], &claim),
            ],
            json!({"keyPath": by.late.key()}),
        ),
        case(
            "expired signature",
            false,
            vec![by.good.message(
                &[
                    "--default-sig-expire",
                    "seconds=1",
                    "--faked-system-time",
                    "20200101T000000",
                    "--ignore-time-conflict",
                    "--ignore-valid-from",
                    "--sign",
                ],
                &claim,
            )],
        ),
        by.case(
            "several keys",
            true,
            vec![by.other.message(SIGN, &claim)],
            json!({"keyPath": null, "keyPaths": [by.good.key(), by.other.key()]}),
        ),
        by.case(
            "key in the policy",
            true,
            vec![good()],
            json!({"keyPath": null, "keyData": STANDARD.encode(by.good.public())}),
        ),
        by.case(
            "two keys in the policy",
            true,
            vec![by.other.message(SIGN, &claim)],
            json!({"keyPath": null, "keyData": STANDARD.encode(both)}),
        ),
        by.case(
            "no key",
            false,
            vec![good()],
            json!({"keyPath": "/nowhere"}),
        ),
        by.case(
            "key that is none",
            false,
            vec![good()],
            json!({"keyPath": "/etc/passwd"}),
        ),
    ]
}

fn combined(by: &Signers) -> Vec<Case> {
    let good = by.signed_by(json!({}))[0].clone();
    let other = by.signed_by(json!({"keyPath": by.other.key()}))[0].clone();
    let accept = json!({"type": "insecureAcceptAnything"});
    let reject = json!({"type": "reject"});
    let both = || vec![by.signed(":1"), by.other.message(SIGN, &by.payload(":1"))];
    let one = || vec![by.signed(":1")];
    let case = |what, taken, signatures, requirements| Case {
        what,
        signatures,
        requirements,
        image: format!("{}:1", by.name),
        taken,
    };
    vec![
        case("anything", true, vec![], json!([accept])),
        case("nothing", false, one(), json!([reject])),
        case("signed and anything", true, one(), json!([good, accept])),
        case("signed and nothing", false, one(), json!([good, reject])),
        case("both", true, both(), json!([good, other])),
        case("one of both", false, one(), json!([good, other])),
    ]
}

#[test]
fn image_is_taken_if_and_only_if_skopeo_takes_it() {
    let bench = Bench::new();
    let by = Signers {
        good: Signer::new(),
        other: Signer::new(),
        late: Signer::expired(),
        name: bench.name("tool"),
        digest: bench.digest.clone(),
    };
    let cases = [identities(&by), signatures(&by), combined(&by)];
    let mut wrong = Vec::new();
    for case in cases.into_iter().flatten() {
        bench.sign(&case.signatures);
        let policy = bench.requiring(&case.requirements);
        let ours = bench.pull(&policy, &case.image);
        let skopeos = bench.skopeo(&policy, &format!("docker://{}", case.image));
        let verdicts = [ours.status.success(), skopeos.status.success()];
        if verdicts != [case.taken; 2] {
            wrong.push(format!(
                "{}: {verdicts:?}\n{ours:?}\n{skopeos:?}",
                case.what
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn scope_that_is_most_specific_decides_as_for_skopeo() {
    let bench = Bench::new();
    let (accept, reject) = (
        json!([{"type": "insecureAcceptAnything"}]),
        json!([{"type": "reject"}]),
    );
    let (host, name) = (&bench.registry.host, bench.name("tool"));
    let by_tag = format!("{name}:1");
    for (scopes, taken) in [
        (
            json!({by_tag.as_str(): accept, name.as_str(): reject}),
            true,
        ),
        (
            json!({by_tag.as_str(): reject, name.as_str(): accept}),
            false,
        ),
        (
            json!({format!("{name}:2"): accept, host.as_str(): reject}),
            false,
        ),
        (json!({name.as_str(): accept, host.as_str(): reject}), true),
        (json!({name[..name.len() - 1]: accept, "": reject}), false),
        (json!({"127.0.0.1": accept}), false),
        (json!({"*.0.0.1": accept}), true),
        (json!({"*.0.1": accept, "*.0.0.1": reject}), false),
        (json!({"": accept}), true),
        (json!({"docker.io": accept}), false),
        (json!({}), false),
    ] {
        let policy =
            json!({"default": reject, "transports": {"docker": scopes, "oci": {"": accept}}});
        let policy = bench.policy(&policy.to_string());
        let ours = bench.pull(&policy, &by_tag).status.success();
        let skopeos = bench.skopeo(&policy, &format!("docker://{by_tag}"));
        assert_eq!(
            [ours, skopeos.status.success()],
            [taken; 2],
            "{scopes} {skopeos:?}"
        );
    }
}

#[test]
fn malformed_policy_is_refused_as_by_skopeo() {
    let bench = Bench::new();
    let accept = r#"[{"type":"insecureAcceptAnything"}]"#;
    let policies = [
        "",
        "{}",
        "[]",
        "null",
        r#"{"default":[]}"#,
        r#"{"default":null}"#,
        r#"{"default":[{}]}"#,
        r#"{"default":[{"type":"unknown"}]}"#,
        r#"{"default":[{"type":"insecureAcceptAnything","more":1}]}"#,
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#,
        r#"{"default":[{"type":"signedBy","keyPath":"/k"}]}"#,
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":"aaaa"}]}"#,
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{}}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/k","fulcio":{}}]}"#,
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/k","keyData":"aaaa"}]}"#,
    ];
    let around = [
        r#"{"default":ACCEPT,"default":ACCEPT}"#,
        r#"{"default":ACCEPT,"more":1}"#,
        r#"{"default":ACCEPT,"transports":[]}"#,
        r#"{"default":ACCEPT,"transports":{"docker":ACCEPT}}"#,
        r#"{"default":ACCEPT,"transports":{"docker":{"x":[]}}}"#,
        r#"{"default":ACCEPT,"transports":{"docker":{"x":ACCEPT,"x":ACCEPT}}}"#,
        r#"{"default":ACCEPT,"transports":{"oci":{"x":ACCEPT}}}"#,
        r#"{"default":ACCEPT,"transports":{"docker-archive":{"/x":ACCEPT}}}"#,
        r#"{"default":ACCEPT} more"#,
    ];
    let around = around.map(|text| text.replace("ACCEPT", accept));
    let image = bench.name("tool:1");
    for text in policies
        .into_iter()
        .chain(around.iter().map(String::as_str))
    {
        let policy = bench.policy(text);
        let ours = bench.pull(&policy, &image);
        crate::recorder::refused(&ours, "policy");
        let skopeos = bench.skopeo(&policy, &format!("docker://{image}"));
        assert!(!skopeos.status.success(), "{text}");
    }
    assert!(
        bench
            .host
            .stdout(&["image", "list", "--no-legend"])
            .is_empty()
    );
}
