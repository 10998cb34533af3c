//! What a registry asks for with 401: a password, or a token of a login server.
//!
//! Pure text; RFC 9110 section 11.6.1, and the token specification of distribution.

use std::collections::HashMap;

/// One way to authenticate that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token of the login server `realm`.
    Bearer {
        /// Where tokens are had.
        realm: String,
        /// What the registry calls itself there.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best that the headers offer: a token before a password.
    pub fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for header in headers {
            for challenge in http_auth::parse_challenges(header).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let mut parameters: HashMap<_, _> = challenge
                        .params
                        .iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_unescaped()))
                        .collect();
                    return Some(Self::Bearer {
                        realm: parameters.remove("realm")?,
                        service: parameters.remove("service"),
                        scope: parameters.remove("scope"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn token_is_preferred_to_password() {
        let headers = [
            r#"Basic realm="x""#,
            r#"Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push""#,
        ];
        assert_eq!(
            Challenge::best(headers.into_iter()),
            Some(Challenge::Bearer {
                realm: "https://auth.example.com/token".to_owned(),
                service: Some("registry".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        assert_eq!(
            Challenge::best(headers.into_iter().take(1)),
            Some(Challenge::Basic)
        );
    }

    #[test]
    fn unknown_or_malformed_challenge_is_none() {
        for header in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer service=\"x\"",
            "Basic realm=\"",
        ] {
            assert_eq!(Challenge::best([header].into_iter()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn challenge_of_any_text_does_not_panic(text in "(Bearer|Basic|,| |=|\"|realm|\\\\|a){0,20}") {
            Challenge::best([text.as_str()].into_iter());
        }
    }
}
