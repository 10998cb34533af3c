//! Ports of apps that are exposed on the host: as rkt spells them, and what of them contradicts (contract section 3.3).

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail, ensure};
use contract::PodManifest;
use contract::image::{App, Port};
use contract::name::is_ac_name;
use contract::pod::ExposedPort;
use image::Image;

/// Reads every `--port`; `whole` for a pod without apps that could be asked for the port of a name.
///
/// # Errors
/// For one that is malformed.
pub fn exposed(texts: &[String], whole: bool) -> Result<Vec<ExposedPort>> {
    let (form, parse): (_, fn(&str) -> Result<ExposedPort>) = match whole {
        true => ("NAME:tcp|udp:PODPORT:IP:HOSTPORT", parse_whole),
        false => ("NAME:[IP:]HOSTPORT", parse),
    };
    let read = |text: &String| {
        parse(text).with_context(|| format!("read --port {text:?}, expected {form}"))
    };
    texts.iter().map(read).collect()
}

fn parse(text: &str) -> Result<ExposedPort> {
    let (name, rest) = text.split_once(':').context("no :")?;
    let (host_ip, host_port) = of_host(rest);
    Ok(ExposedPort {
        name: name.to_owned(),
        host_port: host_port.parse()?,
        host_ip,
        pod_port: None,
    })
}

fn parse_whole(text: &str) -> Result<ExposedPort> {
    let mut parts = text.splitn(4, ':');
    let mut next = || parts.next().context("too few parts");
    let (name, protocol, port, rest) = (next()?, next()?, next()?, next()?);
    let (address, host_port) = rest.rsplit_once(':').context("too few parts")?;
    Ok(ExposedPort {
        name: name.to_owned(),
        host_port: host_port.parse()?,
        host_ip: Some(bare(address)).filter(|address| !address.is_empty()),
        pod_port: Some(Port {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            port: port.parse()?,
            count: 1,
            socket_activated: false,
        }),
    })
}

/// Reads every `--publish`.
///
/// # Errors
/// For one that is malformed.
pub fn published(texts: &[String]) -> Result<Vec<ExposedPort>> {
    let read = |text: &String| {
        publish(text).with_context(|| {
            format!("read --publish {text:?}, expected [IP:]HOSTPORT:PODPORT[/tcp|udp]")
        })
    };
    texts.iter().map(read).collect()
}

fn publish(text: &str) -> Result<ExposedPort> {
    let (places, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (rest, own) = places.rsplit_once(':').context("no :")?;
    let (host_ip, host) = of_host(rest);
    let host_ip = host_ip.filter(|address| !address.is_empty());
    let (host_port, host_count) = range(host)?;
    let (port, count) = range(own)?;
    ensure!(
        host_count == count,
        "{host_count} ports of the host, and {count} of the pod"
    );
    // Words of letters and digits with single dashes between them.
    let ip = host_ip.as_deref().unwrap_or("").to_ascii_lowercase();
    let words = format!("{protocol}-{ip}-{host_port}").replace(['.', ':'], "-");
    let words: Vec<_> = words.split('-').filter(|word| !word.is_empty()).collect();
    Ok(ExposedPort {
        name: words.join("-"),
        host_port,
        host_ip,
        pod_port: Some(Port {
            name: format!("{protocol}-{port}"),
            protocol: protocol.to_owned(),
            port,
            count,
            socket_activated: false,
        }),
    })
}

/// A port, or from one to another: the first, and how many.
fn range(text: &str) -> Result<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| -> Result<u16> { text.parse().with_context(|| format!("port {text:?}")) };
    let (first, last) = (number(first)?, number(last)?);
    let more = last
        .checked_sub(first)
        .context("the last port is before the first")?;
    Ok((first, more.checked_add(1).context("ports are 1 to 65535")?))
}

/// `[IP:]PORT` in its parts.
fn of_host(text: &str) -> (Option<String>, &str) {
    match text.rsplit_once(':') {
        Some((address, port)) => (Some(bare(address)), port),
        None => (None, text),
    }
}

/// An IPv6 address may stand in brackets.
fn bare(address: &str) -> String {
    address.trim_matches(['[', ']']).to_owned()
}

/// A port of the host that is taken.
struct Taken<'a> {
    by: &'a str,
    protocol: &'a str,
    /// `None` = all.
    address: Option<IpAddr>,
    ports: RangeInclusive<u32>,
}

impl Taken<'_> {
    fn clashes(&self, other: &Self) -> bool {
        let meets = |one: &RangeInclusive<u32>, two: &RangeInclusive<u32>| {
            one.start() <= two.end() && two.start() <= one.end()
        };
        let everywhere = self.address.is_none() || other.address.is_none();
        self.protocol == other.protocol
            && (everywhere || self.address == other.address)
            && meets(&self.ports, &other.ports)
    }
}

/// Checks the ports that a pod exposes, whose apps run from `images`, in the same order.
///
/// # Errors
/// For a name that no app or more than one has, that is exposed twice, or a port of the host that two want.
pub fn check(manifest: &PodManifest, images: &[Image]) -> Result<()> {
    let apps = manifest.apps.iter().zip(images);
    let programs = apps.filter_map(|(app, image)| app.app.as_ref().or(image.manifest.app.as_ref()));
    let ports: Vec<_> = programs.flat_map(|app: &App| &app.ports).collect();
    let mut taken: Vec<Taken> = Vec::new();
    for exposed in &manifest.ports {
        let name = &exposed.name;
        let new = take(exposed, &ports).with_context(|| format!("expose port {name:?}"))?;
        for old in &taken {
            ensure!(old.by != name, "port {name:?} is exposed twice");
            ensure!(
                !old.clashes(&new),
                "ports {:?} and {name:?} both want port {} of the host",
                old.by,
                new.ports.start().max(old.ports.start())
            );
        }
        taken.push(new);
    }
    Ok(())
}

fn take<'a>(exposed: &'a ExposedPort, ports: &[&'a Port]) -> Result<Taken<'a>> {
    let mut named = ports.iter().filter(|port| port.name == exposed.name);
    let port = match (&exposed.pod_port, named.next(), named.next()) {
        (Some(port), ..) => port,
        (None, Some(port), None) => port,
        (None, Some(_), Some(_)) => bail!("more than one app has a port of this name"),
        (None, None, _) => {
            let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
            bail!(
                "no app has it; the ports of the apps are: {}",
                names.join(", ")
            )
        }
    };
    ensure!(
        is_ac_name(&exposed.name),
        "the name may hold only a-z, 0-9 and single dashes"
    );
    ensure!(
        matches!(port.protocol.as_str(), "tcp" | "udp"),
        "protocol {:?} is neither tcp nor udp",
        port.protocol
    );
    let range = |first: u16| {
        let last = u32::from(first) + u32::from(port.count.max(1)) - 1;
        ensure!(
            first > 0 && last <= u32::from(u16::MAX),
            "port {first}: ports are 1 to 65535"
        );
        Ok(first.into()..=last)
    };
    range(port.port)?;
    let address = exposed.host_ip.as_ref().map(|text| {
        let address: IpAddr = text.parse().with_context(|| format!("address {text:?}"))?;
        Ok::<_, anyhow::Error>(address)
    });
    Ok(Taken {
        by: &exposed.name,
        protocol: &port.protocol,
        address: address
            .transpose()?
            .filter(|address| !address.is_unspecified()),
        ports: range(exposed.host_port)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ExposedPort> {
        Ok(exposed(&[text.to_owned()], false)?.remove(0))
    }

    #[test]
    fn port_with_and_without_address_is_read() -> Result<()> {
        assert_eq!(read("http:8080")?.host_port, 8080);
        for (text, address) in [("http:127.0.0.1:80", "127.0.0.1"), ("http:[::1]:80", "::1")] {
            assert_eq!(read(text)?.host_ip.as_deref(), Some(address));
        }
        assert!(read("http").is_err() && read("http:70000").is_err());
        Ok(())
    }

    #[test]
    fn published_port_has_a_name_of_its_own_and_says_what_it_leads_to() -> Result<()> {
        let read =
            |text: &str| -> Result<ExposedPort> { Ok(published(&[text.to_owned()])?.remove(0)) };
        for (text, name, address, host, own) in [
            ("8080:80", "tcp-8080", None, 8080, ("tcp", 80, 1)),
            (
                "127.0.0.1:53:5353/udp",
                "udp-127-0-0-1-53",
                Some("127.0.0.1"),
                53,
                ("udp", 5353, 1),
            ),
            (
                "[::1]:8000-8009:80-89",
                "tcp-1-8000",
                Some("::1"),
                8000,
                ("tcp", 80, 10),
            ),
            (":8080:80", "tcp-8080", None, 8080, ("tcp", 80, 1)),
        ] {
            let read = read(text)?;
            let port = read.pod_port.context("the pod's port")?;
            assert_eq!(
                (&*read.name, read.host_ip.as_deref(), read.host_port),
                (name, address, host)
            );
            assert_eq!((&*port.protocol, port.port, port.count), own, "{text}");
            assert!(is_ac_name(&read.name), "{}", read.name);
        }
        for text in [
            "80",
            "80:",
            "x:80",
            "80:70000",
            "80-81:80",
            "81-80:81-80",
            "80:80:80:80:x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        Ok(())
    }

    #[test]
    fn port_of_a_pod_without_apps_says_what_it_leads_to() -> Result<()> {
        let read = |text: &str| exposed(&[text.to_owned()], true);
        let whole = read("http:tcp:80:::1:8080")?.remove(0);
        assert_eq!(
            (whole.host_port, whole.host_ip.as_deref()),
            (8080, Some("::1"))
        );
        let port = whole.pod_port.context("the pod's port")?;
        assert_eq!((port.protocol.as_str(), port.port), ("tcp", 80));
        assert_eq!(read("http:tcp:80::8080")?[0].host_ip, None);
        for text in ["http:8080", "http:tcp:80:8080", "http:tcp:x::80"] {
            assert!(read(text).is_err(), "{text}");
        }
        Ok(())
    }

    /// What is said of exposing `ports` of one app.
    fn checked(ports: &str) -> Result<()> {
        let text = format!(
            r#"{{"acVersion":"0.8.11","acKind":"PodManifest","ports":[{ports}],"apps":[{{"name":"web",
                "image":{{"id":"sha512-00"}},"app":{{"exec":["/x"],"user":"0","group":"0","ports":[
                {{"name":"http","protocol":"tcp","port":80}},{{"name":"dns","protocol":"udp","port":53}},
                {{"name":"ftp","protocol":"tcp","port":2000,"count":10}}]}}}}]}}"#
        );
        let manifest: PodManifest = serde_json::from_str(&text)?;
        let image = Image {
            id: String::new(),
            names: Vec::new(),
            kind: image::Kind::Aci,
            manifest: crate::app::exec::tests::image(&[], &[]),
            rootfs: "rootfs.erofs".into(),
            data: vec![],
            layers: vec![],
            rootfs_bytes: 0,
            imported: std::time::UNIX_EPOCH,
            digest: None,
            used: std::time::UNIX_EPOCH,
            rootfs_digest: None,
            lease: None,
            below: Vec::new(),
            source_bytes: Vec::new(),
            history: Vec::new(),
        };
        check(&manifest, &[image])
    }

    #[test]
    fn ports_that_do_not_meet_are_exposed() {
        for ports in [
            "",
            r#"{"name":"http","hostPort":80},{"name":"dns","hostPort":80}"#,
            r#"{"name":"http","hostPort":99},{"name":"ftp","hostPort":100}"#,
            r#"{"name":"http","hostPort":80,"hostIP":"127.0.0.1"},{"name":"ftp","hostPort":80,"hostIP":"127.0.0.2"}"#,
            r#"{"name":"own","hostPort":80,"podPort":{"name":"own","protocol":"tcp","port":8080}}"#,
        ] {
            checked(ports).expect("a pod");
        }
    }

    #[test]
    fn ports_that_contradict_are_refused() {
        for (ports, reason) in [
            (
                r#"{"name":"http","hostPort":80},{"name":"http","hostPort":81}"#,
                "twice",
            ),
            (r#"{"name":"smtp","hostPort":25}"#, "http, dns, ftp"),
            (
                r#"{"name":"http","hostPort":105},{"name":"ftp","hostPort":100}"#,
                "port 105 of the host",
            ),
            (
                r#"{"name":"http","hostPort":80,"hostIP":"0.0.0.0"},{"name":"ftp","hostPort":80,"hostIP":"127.0.0.2"}"#,
                "port 80 of the host",
            ),
            (r#"{"name":"http","hostPort":0}"#, "1 to 65535"),
            (r#"{"name":"ftp","hostPort":65530}"#, "1 to 65535"),
            (r#"{"name":"http","hostPort":80,"hostIP":"x"}"#, "address"),
            (
                r#"{"name":"o","hostPort":80,"podPort":{"name":"o","protocol":"sctp","port":8080}}"#,
                "neither tcp nor udp",
            ),
        ] {
            let error = format!("{:#}", checked(ports).expect_err("refused"));
            assert!(error.contains(reason), "{reason} not in {error}");
        }
    }
}
