//! Where an image is asked for: one repository of one host, and how far that host is trusted.
//!
//! Made from a reference by the configuration, used by the client. Pure values.

use image::oci::{DOCKER_HOST, Reference};

/// The host behind the name docker.io.
const DOCKER_API_HOST: &str = "registry-1.docker.io";

/// One place that may have an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is asked for there.
    pub reference: Reference,
    /// Certificates are not checked, and without TLS it goes on in plain text.
    pub insecure: bool,
}

impl Endpoint {
    /// Host and port to connect to.
    pub fn api_host(&self) -> &str {
        match self.reference.host() {
            DOCKER_HOST => DOCKER_API_HOST,
            host => host,
        }
    }

    /// Whether it is this machine itself.
    pub fn is_loopback(&self) -> bool {
        let host = self.reference.host();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || address
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_names_that_look_like_it() {
        for (text, loopback) in [
            ("localhost/x", true),
            ("localhost:5000/x", true),
            ("127.0.0.1:5000/x", true),
            ("127.8.0.1:5/x", true),
            ("[::1]:5000/x", true),
            ("localhost.example.com/x", false),
            ("127.0.0.1.example.com/x", false),
            ("10.0.0.1:5000/x", false),
        ] {
            let endpoint = Endpoint {
                reference: text.parse().unwrap(),
                insecure: false,
            };
            assert_eq!(endpoint.is_loopback(), loopback, "{text}");
        }
    }
}
