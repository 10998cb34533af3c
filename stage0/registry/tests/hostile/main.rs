//! Pulls from, and pushes to, a registry that misbehaves: a server of the tests' own, on loopback, without TLS.

mod blobs;
mod documents;
mod double;
mod image;
mod logins;
mod pushes;
mod refusals;
mod tags;
