//! Which images are taken, by policy.json: with Debian's registry, signatures of GnuPG, skopeo, podman and openssl, and skopeo's
//! own verdict beside ours.

mod attached;
mod bench;
mod lookaside;
mod paths;
mod verdicts;
