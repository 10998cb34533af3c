//! The built `fairing`, driven with a stage 1 of a few lines of shell: no KVM, no root, no network.

mod acis;
mod at_once;
mod bad_input;
mod built;
mod cached;
mod committed;
mod converted;
mod dependent;
mod ends;
mod exported;
mod fetching;
mod help;
mod kept;
mod killed;
mod many_pulls;
mod pods;
mod policy;
mod recorder;
mod registries;
mod registry;
mod signer;
mod stage1s;
mod versions;
mod web;
