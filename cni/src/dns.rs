//! What plugins say of name servers (section 5, success).

use std::fmt::Write;

use serde_json::Value;

use crate::Attachment;

/// What /etc/resolv.conf is to be by the first of `attachments` whose plugins name servers.
pub fn resolv<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Option<String> {
    let results = attachments.filter_map(|attachment| attachment.result.as_ref());
    let mut dns = results.map(|result| &result["dns"]);
    let dns = dns.find(|dns| words(dns, "nameservers").next().is_some())?;
    let mut text = String::new();
    for server in words(dns, "nameservers") {
        let _ = writeln!(text, "nameserver {server}");
    }
    if let Some(domain) = dns["domain"].as_str().filter(|domain| !domain.is_empty()) {
        let _ = writeln!(text, "domain {domain}");
    }
    for key in ["search", "options"] {
        let words: Vec<_> = words(dns, key).collect();
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    Some(text)
}

fn words<'a>(dns: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    let list = dns[key].as_array().into_iter().flatten();
    list.filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
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
            resolv(attachments.iter()).as_deref(),
            Some(
                "nameserver 192.0.2.1\nnameserver 2001:db8::1\ndomain a.example\nsearch b.example c.example\noptions ndots:2\n"
            )
        );
        assert_eq!(resolv(attachments[..1].iter()), None);
        Ok(())
    }
}
