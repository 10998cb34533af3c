//! The names of a reference in files that say something about many images: its own, and those above it.
//!
//! Used for containers-policy.json(5) and containers-registries.d(5), which count the most specific name alone.

use crate::reference::Reference;

impl Reference {
    /// The image itself, its repository, what that lies in, its host with the port, and the domains above as `*.DOMAIN`.
    pub fn scopes(&self) -> Vec<String> {
        let name = self.name();
        let above = name
            .rmatch_indices('/')
            .map(|(at, _)| name[..at].to_owned());
        let host = self.host().split(':').next().unwrap_or_default();
        let domains = host
            .match_indices('.')
            .map(|(at, _)| format!("*{}", &host[at..]));
        [self.to_string(), name.clone()]
            .into_iter()
            .chain(above)
            .chain(domains)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_go_from_the_image_to_the_domains() {
        let scopes = |text: &str| text.parse::<Reference>().unwrap().scopes();
        assert_eq!(
            scopes("a.example.com:8443/x/y:1"),
            [
                "a.example.com:8443/x/y:1",
                "a.example.com:8443/x/y",
                "a.example.com:8443/x",
                "a.example.com:8443",
                "*.example.com",
                "*.com"
            ]
        );
        assert_eq!(
            scopes("alpine"),
            [
                "docker.io/library/alpine:latest",
                "docker.io/library/alpine",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            scopes(&format!("localhost/x:1@{digest}"))[0],
            format!("localhost/x@{digest}")
        );
    }
}
