//! OpenPGP messages that hold what they sign: one document, one signature over it. RFC 9580, section 10.3.

use std::io::{Cursor, Read};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use pgp::packet::{Packet, PacketParser, Signature};

use crate::certificate::Certificate;
use crate::signature::{MAX_SIGNATURE_BYTES, Signer, by_whom};

/// Packets that such a message has, at most.
const MAX_PACKETS: usize = 3;

/// What a message holds, if one of `trusted` has signed it.
///
/// # Errors
/// If nobody of them has, or it is no such message.
pub fn open(trusted: &[Certificate], message: &[u8], now: SystemTime) -> Result<(Vec<u8>, Signer)> {
    let (content, signature) = read(message)?;
    let signer = by_whom(trusted, &signature, &mut Cursor::new(&content), now)?;
    Ok((content, signer))
}

fn read(message: &[u8]) -> Result<(Vec<u8>, Signature)> {
    ensure!(
        message.len() as u64 <= MAX_SIGNATURE_BYTES,
        "more than {MAX_SIGNATURE_BYTES} bytes are no signature"
    );
    let mut packets = packets(message)?;
    if let [Packet::CompressedData(packed)] = packets.as_slice() {
        let unpacked = packed.decompress().context("a damaged OpenPGP message")?;
        let mut bytes = Vec::new();
        unpacked
            .take(MAX_SIGNATURE_BYTES + 1)
            .read_to_end(&mut bytes)
            .context("a damaged OpenPGP message")?;
        ensure!(
            bytes.len() as u64 <= MAX_SIGNATURE_BYTES,
            "unpacked it has more than {MAX_SIGNATURE_BYTES} bytes"
        );
        packets = self::packets(&bytes)?;
    }
    let mut packets = packets.into_iter();
    match (packets.next(), packets.next(), packets.next()) {
        (
            Some(Packet::OnePassSignature(_)),
            Some(Packet::LiteralData(content)),
            Some(Packet::Signature(signature)),
        )
        | (Some(Packet::Signature(signature)), Some(Packet::LiteralData(content)), None) => {
            Ok((content.data().to_vec(), signature))
        }
        _ => bail!("not an OpenPGP message with one signature"),
    }
}

fn packets(bytes: &[u8]) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    for packet in PacketParser::new(bytes) {
        ensure!(
            packets.len() < MAX_PACKETS,
            "not an OpenPGP message with one signature"
        );
        packets.push(packet.context("not an OpenPGP message")?);
    }
    Ok(packets)
}
