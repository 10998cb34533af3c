//! What plugins say of name servers (section 5, success), and what a host's own resolv.conf(5) would have them say.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Attachment;

/// Where hosts name their name servers, and where those of systemd-resolved are if that itself is the first's.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// What /etc/resolv.conf is to be by the first of `attachments` whose plugins name servers.
///
/// # Errors
/// For a name server that is no address.
pub fn resolv<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> Result<Option<String>> {
    let results = attachments.filter_map(|attachment| attachment.result.as_ref());
    let mut dns = results.map(|result| &result["dns"]);
    let dns = dns.find(|dns| words(dns, "nameservers").next().is_some());
    dns.map(resolv_conf).transpose()
}

/// The resolv.conf(5) that says the same as a plugin's `dns`.
///
/// # Errors
/// For a name server that is no address.
pub fn resolv_conf(dns: &Value) -> Result<String> {
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
    Ok(text)
}

/// What a plugin's `dns` would be by the host's own, but for name servers that only the host itself reaches; without any, empty.
pub fn name_servers() -> Value {
    let texts = RESOLV_CONF
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    let mut found = texts.map(|text| of_resolv_conf(&text));
    let has_any = |dns: &Value| words(dns, "nameservers").next().is_some();
    found.find(has_any).unwrap_or_else(|| json!({}))
}

fn of_resolv_conf(text: &str) -> Value {
    let lines = text.lines().map(|line| line.split_whitespace());
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for mut words in lines {
        match words.next() {
            Some("nameserver") => servers.extend(words.next()),
            // The last line counts.
            Some("search" | "domain") => search = words.collect(),
            Some("options") => options.extend(words),
            _ => {}
        }
    }
    let is_reached = |server: &&str| {
        let address = server.parse::<IpAddr>();
        address.is_ok_and(|address| !address.is_loopback())
    };
    servers.retain(is_reached);
    json!({"nameservers": servers, "search": search, "options": options})
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
    fn name_servers_of_a_host_are_those_that_others_reach_too() -> Result<()> {
        let text = "# by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\ndomain a.example\n\
            nameserver 2001:db8::1\nsearch b.example c.example\noptions edns0\noptions ndots:2\n";
        let same = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch b.example c.example\noptions edns0 ndots:2\n";
        assert_eq!(resolv_conf(&of_resolv_conf(text))?, same);
        Ok(())
    }

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
