//! What plugins say of name servers (section 5, success).

use std::fmt::Write;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Attachment;

/// What /etc/resolv.conf is to be by the first of `attachments` whose plugins name servers.
///
/// # Errors
/// For a name server that is no address.
pub fn resolv<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Result<Option<String>> {
    let results = attachments.filter_map(|attachment| attachment.result.as_ref());
    let mut dns = results.map(|result| &result["dns"]);
    let Some(dns) = dns.find(|dns| words(dns, "nameservers").next().is_some()) else {
        return Ok(None);
    };
    let mut text = String::new();
    for server in words(dns, "nameservers") {
        let address: IpAddr = server
            .parse()
            .with_context(|| format!("name server {server:?}"))?;
        let _ = writeln!(text, "nameserver {address}");
    }
    // The own domain is the first to search: of both lines the last would count.
    let domain = dns["domain"].as_str().filter(|domain| !domain.is_empty());
    let search: Vec<_> = domain.into_iter().chain(words(dns, "search")).collect();
    let options: Vec<_> = words(dns, "options").collect();
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    Ok(Some(text))
}

fn words<'a>(dns: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    let list = dns[key].as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn name_servers_are_those_of_the_first_network_that_has_any() -> Result<()> {
        let attachment = |result: Value| -> Result<Attachment> {
            Ok(Attachment {
                network: crate::Network::parse(br#"{"name": "one", "type": "bridge"}"#)?,
                interface: "eth0".into(),
                arguments: String::new(),
                capabilities: serde_json::Map::new(),
                result: Some(result),
            })
        };
        let attachments = [
            attachment(json!({"dns": {}}))?,
            attachment(
                json!({"dns": {"nameservers": ["192.0.2.1", "2001:db8::1"], "domain": "a.example",
                "search": ["b.example", "c.example"], "options": ["ndots:2"]}}),
            )?,
            attachment(json!({"dns": {"nameservers": ["192.0.2.9"]}}))?,
        ];
        assert_eq!(
            resolv(attachments.iter())?.as_deref(),
            Some(
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example b.example c.example\noptions ndots:2\n"
            )
        );
        assert_eq!(resolv(attachments[..1].iter())?, None);
        let bad = attachment(json!({"dns": {"nameservers": ["ns.example"]}}))?;
        assert!(resolv([bad].iter()).is_err());
        Ok(())
    }
}
