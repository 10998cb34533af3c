//! Which of the networks that are described a container is to be on.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::{Attachment, Network};

/// What is to be added for each of `asked`, which are names of networks, with arguments for their plugins behind a colon, or `all`:
/// interfaces `eth0`, `eth1` and so on, in this order, each network once. Those that files in `folders` describe come before those that are
/// `built_in`. What files describe none is in the log, where `all` are asked for.
///
/// # Errors
/// When one is described nowhere.
pub fn choose(
    asked: &[&str],
    folders: &[PathBuf],
    built_in: Vec<Network>,
) -> Result<Vec<Attachment>> {
    let (mut networks, faults) = Network::find_all(folders)?;
    networks.extend(built_in);
    let mut chosen: Vec<(Network, &str)> = Vec::new();
    for network in asked {
        let (name, arguments) = network.split_once(':').unwrap_or((network, ""));
        let named = networks
            .iter()
            .filter(|network| name == "all" || network.name == name);
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            let folders: Vec<_> = folders
                .iter()
                .map(|folder| folder.to_string_lossy())
                .collect();
            let faults: Vec<_> = faults.iter().map(|fault| format!("; {fault:#}")).collect();
            let (folders, faults) = (folders.join(" and "), faults.concat());
            bail!("no network {name} is described in {folders}{faults}");
        }
        if name == "all" {
            faults.iter().for_each(|fault| tracing::warn!("{fault:#}"));
        }
        for network in named {
            if !chosen.iter().any(|(other, _)| other.name == network.name) {
                chosen.push((network.clone(), arguments));
            }
        }
    }
    let attachment = |(number, (network, arguments)): (usize, (Network, &str))| Attachment {
        network,
        interface: format!("eth{number}"),
        arguments: arguments.to_owned(),
        capabilities: capabilities(arguments),
        result: None,
    };
    Ok(chosen.into_iter().enumerate().map(attachment).collect())
}

/// What newer plugins are told by capabilities, and older ones by arguments of these names.
fn capabilities(arguments: &str) -> Map<String, Value> {
    let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
    let told = pairs.filter_map(|(key, value)| match key {
        "IP" => Some(("ips".to_owned(), json!([value]))),
        "MAC" => Some(("mac".to_owned(), json!(value))),
        _ => None,
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is chosen of these configurations: networks, interfaces and arguments.
    fn chosen(net: &str, networks: &[(&str, &str)]) -> Result<Vec<[String; 3]>> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("net.d"))?;
        for (file, json) in networks {
            fs::write(folder.path().join("net.d").join(file), json)?;
        }
        let folders = [folder.path().join("net.d")];
        let asked: Vec<_> = net.split(',').collect();
        let built_in = ["one", "own"].map(|name| {
            Network::parse(format!(r#"{{"name": "{name}", "type": "ptp"}}"#).as_bytes())
        });
        let built_in = built_in.into_iter().collect::<Result<_>>()?;
        let chosen = choose(&asked, &folders, built_in)?.into_iter();
        Ok(chosen
            .map(|chosen| [chosen.network.name, chosen.interface, chosen.arguments])
            .collect())
    }

    const NETWORKS: [(&str, &str); 3] = [
        ("10.conf", r#"{"name": "one", "type": "bridge"}"#),
        ("20.conf", r#"{"name": "two", "type": "ptp"}"#),
        ("30.conf", "{"),
    ];

    #[test]
    fn networks_are_chosen_in_the_order_they_are_named_with_their_arguments() -> Result<()> {
        let told = Value::from(capabilities("IP=192.0.2.9;MAC=02:00:00:00:00:01;A=1"));
        assert_eq!(
            told,
            json!({"ips": ["192.0.2.9"], "mac": "02:00:00:00:00:01"})
        );
        let both = chosen("two:IP=192.0.2.9;MAC=02:00:00:00:00:01,one", &NETWORKS)?;
        assert_eq!(
            both,
            [
                ["two", "eth0", "IP=192.0.2.9;MAC=02:00:00:00:00:01"],
                ["one", "eth1", ""],
            ]
        );
        Ok(())
    }

    #[test]
    fn all_networks_are_chosen_once_beside_those_that_are_named() -> Result<()> {
        let all = chosen("two:A=1,all", &NETWORKS)?;
        let expected = [
            ["two", "eth0", "A=1"],
            ["one", "eth1", ""],
            ["own", "eth2", ""],
        ];
        assert_eq!(all, expected);
        Ok(())
    }

    #[test]
    fn network_that_is_not_there_is_refused_with_what_could_not_be_read() {
        let error = format!(
            "{:#}",
            chosen("one,three", &NETWORKS).expect_err("no network")
        );
        for part in ["no network three", "net.d", "30.conf"] {
            assert!(error.contains(part), "{part} not in {error}");
        }
    }
}
