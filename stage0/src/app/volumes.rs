//! Volumes and their mounts, as rkt spells them on the command line.

use anyhow::{Context, Result, bail};
use contract::annotation::{self, Annotation};
use contract::name::is_ac_name;
use contract::pod::{Mount, Volume};

/// `NAME,kind=host|empty,source=PATH,readOnly=BOOL,recursive=BOOL,mode=,uid=,gid=,cache=POLICY`, and the annotation that
/// says its cache policy.
///
/// # Errors
/// For anything else.
pub fn volume(text: &str) -> Result<(Volume, Option<Annotation>)> {
    parse_volume(text).with_context(|| format!("read --volume {text:?}"))
}

fn parse_volume(text: &str) -> Result<(Volume, Option<Annotation>)> {
    let (name, rest) = text.split_once(',').context("no kind= after the name")?;
    let mut volume = Volume {
        name: name.strip_prefix("name=").unwrap_or(name).to_owned(),
        kind: String::new(),
        source: None,
        read_only: None,
        recursive: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut policy = None;
    for part in rest.split(',') {
        let (key, value) = part.split_once('=').context("expected KEY=VALUE")?;
        match key {
            "kind" => value.clone_into(&mut volume.kind),
            "source" => volume.source = Some(value.to_owned()),
            "readOnly" => volume.read_only = Some(value.parse()?),
            "recursive" => volume.recursive = Some(value.parse()?),
            "cache" => policy = Some(value),
            "mode" => volume.mode = Some(value.to_owned()),
            "uid" => volume.uid = Some(value.parse()?),
            "gid" => volume.gid = Some(value.parse()?),
            _ => bail!("unknown key {key:?}"),
        }
    }
    if !is_ac_name(&volume.name) {
        bail!(
            "name {:?} may hold only a-z, 0-9 and single dashes",
            volume.name
        );
    }
    match (volume.kind.as_str(), &volume.source) {
        ("host", Some(source)) if source.starts_with('/') => {}
        ("host", _) => bail!("a host volume needs source= with an absolute path"),
        ("empty", None) if policy.is_some() => bail!("an empty volume has no cache="),
        ("empty", None) => {}
        ("empty", Some(_)) => bail!("an empty volume has no source"),
        (kind, _) => bail!("unknown kind {kind:?}; there are host and empty"),
    }
    let cache = policy.map(|policy| cache(&volume.name, policy));
    Ok((volume, cache))
}

/// What tells stage 1 the cache policy of the volume `name`; which there are, it knows.
fn cache(name: &str, policy: &str) -> Annotation {
    Annotation::new(&format!("{}{name}", annotation::VOLUME_CACHE), policy)
}

/// `volume=NAME,target=PATH`.
///
/// # Errors
/// For anything else.
pub fn mount(text: &str) -> Result<Mount> {
    parse_mount(text).with_context(|| format!("read --mount {text:?}"))
}

fn parse_mount(text: &str) -> Result<Mount> {
    let (mut name, mut path) = (None, None);
    for part in text.split(',') {
        match part.split_once('=').context("expected KEY=VALUE")? {
            ("volume", value) => name = Some(value.to_owned()),
            ("target", value) => path = Some(value.to_owned()),
            (key, _) => bail!("unknown key {key:?}"),
        }
    }
    let path = path.context("no target=")?;
    if !path.starts_with('/') {
        bail!("target {path:?} is not absolute");
    }
    Ok(Mount {
        volume: name.context("no volume=")?,
        path,
        app_volume: None,
    })
}

/// `HOST:TARGET[:OPTION,…]`, as podman's `-v`, options being `ro`, `rw` and `cache=POLICY`: the mount of a volume of the app's
/// own, called `name`, and the annotation that says its cache policy.
///
/// # Errors
/// For anything else.
pub fn share(text: &str, name: String) -> Result<(Mount, Option<Annotation>)> {
    let context = || format!("read -v {text:?}, expected HOST:TARGET[:OPTION,…]");
    parse_share(text, name).with_context(context)
}

fn parse_share(text: &str, name: String) -> Result<(Mount, Option<Annotation>)> {
    let mut parts = text.split(':');
    let (source, path) = (
        parts.next().unwrap_or(""),
        parts.next().context("no target")?,
    );
    let (mut read_only, mut policy) = (None, None);
    for option in parts.next().iter().flat_map(|options| options.split(',')) {
        let already = match option.split_once('=') {
            None if option == "ro" || option == "rw" => read_only.replace(option == "ro").is_some(),
            Some(("cache", value)) => policy.replace(value).is_some(),
            _ => {
                bail!("no option {option:?}: there are ro, rw and cache=, with commas between them")
            }
        };
        if already {
            bail!("option {option:?} says again what another has said");
        }
    }
    if parts.next().is_some() {
        bail!("a third colon");
    }
    if !source.contains('/') && source != "." && source != ".." {
        bail!("{source:?} is no path: volumes by name are --volume and --mount");
    }
    if !path.starts_with('/') {
        bail!("target {path:?} is not absolute");
    }
    let source = std::path::absolute(source)?;
    let source = source.to_str().context("the path is not UTF-8")?.to_owned();
    let cache = policy.map(|policy| cache(&name, policy));
    let mount = Mount {
        volume: name.clone(),
        path: path.to_owned(),
        app_volume: Some(Volume {
            name,
            kind: "host".to_owned(),
            source: Some(source),
            read_only: Some(read_only.unwrap_or(false)),
            recursive: None,
            mode: None,
            uid: None,
            gid: None,
        }),
    };
    Ok((mount, cache))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_of_each_kind_is_read() -> Result<()> {
        let (host, cache) = volume("data,kind=host,source=/srv,readOnly=true,cache=none")?;
        assert_eq!(cache, Some(Annotation::new("fairing/cache/data", "none")));
        assert_eq!(
            (host.source.as_deref(), host.read_only),
            (Some("/srv"), Some(true))
        );
        assert_eq!(
            volume("tmp,kind=empty,mode=0700")?.0.mode.as_deref(),
            Some("0700")
        );
        Ok(())
    }

    #[test]
    fn volume_malformed_is_refused() {
        for text in [
            "data",
            "Data,kind=empty",
            "data,kind=host",
            "data,kind=host,source=rel",
            "data,kind=tape",
            "data,kind=empty,x=1",
            "data,kind=empty,cache=none",
        ] {
            assert!(volume(text).is_err(), "{text}");
        }
    }

    #[test]
    fn share_is_a_mount_of_a_volume_of_its_own() -> Result<()> {
        let (mount, cache) = share("/srv/a:/data:ro", "share-0".into())?;
        assert_eq!(cache, None);
        let volume = mount.app_volume.context("a volume")?;
        assert_eq!(
            (mount.path.as_str(), mount.volume.as_str()),
            ("/data", "share-0")
        );
        assert_eq!(volume.source.as_deref(), Some("/srv/a"));
        assert_eq!(volume.read_only, Some(true));
        let (here, cache) = share("./x:/d:cache=always,rw", "s".into())?;
        assert_eq!(cache, Some(Annotation::new("fairing/cache/s", "always")));
        let here = here.app_volume.context("a volume")?;
        assert_eq!(here.read_only, Some(false));
        let folder = std::env::current_dir()?;
        assert_eq!(here.source, folder.join("x").to_str().map(String::from));
        for text in [
            "/a",
            "name:/d",
            "/a:d",
            "/a:/d:z",
            "/a:/d:ro:ro",
            "/a:/d:ro,rw",
            "/a:/d:",
            ":/d",
        ] {
            assert!(share(text, "s".into()).is_err(), "{text}");
        }
        Ok(())
    }
}
