//! Who an app runs as: user and group looked up in the image's etc/passwd and etc/group, by the rules of `protocol::App`.
//!
//! Called by `furnish` with the files' contents. Pure; a malformed line is skipped.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// An app's ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, in order, each once.
    pub groups: Vec<u32>,
}

impl Account {
    /// Who may do anything.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
}

/// What is asked for, and the image's answers.
pub struct Lookup<'a> {
    /// `App::user`.
    pub user: &'a str,
    /// `App::group`.
    pub group: &'a str,
    /// `App::supplementary_gids`.
    pub supplementary_gids: &'a [u32],
    /// etc/passwd.
    pub passwd: &'a [u8],
    /// etc/group.
    pub groups: &'a [u8],
}

impl Lookup<'_> {
    /// Resolves the ids; `owner` gives the user and group that own a path of the image.
    ///
    /// # Errors
    /// A name that the image does not know, a path that it does not have.
    pub fn resolve(&self, owner: impl Fn(&str) -> Result<(u32, u32)>) -> Result<Account> {
        let alone = self.user == self.group;
        let entry = self.passwd_entry();
        let (uid, own_gid) = match (number(self.user), &entry) {
            (_, Some((_, uid, gid))) => (*uid, *gid),
            (Some(uid), None) => (uid, uid),
            (None, None) if self.user.starts_with('/') => owner(self.user)?,
            (None, None) => anyhow::bail!("no user {:?} in the image's etc/passwd", self.user),
        };
        let gid = if alone { own_gid } else { self.gid(&owner)? };
        let mut groups = self.supplementary_gids.to_vec();
        if let Some((name, ..)) = entry.filter(|_| alone) {
            groups.extend(self.memberships(name));
        }
        let mut seen = std::collections::HashSet::new();
        groups.retain(|gid| seen.insert(*gid));
        Ok(Account { uid, gid, groups })
    }

    fn gid(&self, owner: impl Fn(&str) -> Result<(u32, u32)>) -> Result<u32> {
        match number(self.group) {
            Some(gid) => Ok(gid),
            None if self.group.starts_with('/') => Ok(owner(self.group)?.1),
            None => self
                .named_gid()
                .with_context(|| format!("no group {:?} in the image's etc/group", self.group)),
        }
    }

    fn named_gid(&self) -> Option<u32> {
        lines(self.groups)
            .find(|fields| fields[0] == self.group)?
            .get(2)
            .and_then(|gid| id(gid))
    }

    /// What etc/passwd says of the user: name, id and group.
    fn passwd_entry(&self) -> Option<(&str, u32, u32)> {
        let wanted = number(self.user);
        lines(self.passwd).find_map(|fields| {
            let (name, uid) = (fields[0], id(fields.get(2)?)?);
            let gid = id(fields.get(3)?)?;
            let is_wanted = wanted.map_or(name == self.user, |wanted| wanted == uid);
            is_wanted.then_some((name, uid, gid))
        })
    }

    fn memberships(&self, name: &str) -> impl Iterator<Item = u32> {
        lines(self.groups).filter_map(move |fields| {
            let is_member = fields.get(3)?.split(',').any(|member| member == name);
            is_member.then(|| id(fields[2]))?
        })
    }
}

/// A decimal id; the highest number is none, for the system calls take it as "leave it".
fn id(text: &str) -> Option<u32> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_decimal && *id != u32::MAX)
}

/// The id that `text` stands for without the image: `root` or decimal.
fn number(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { id(text) }
}

/// The fields of each line that has a name.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    let text = file
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok());
    text.map(|line| line.trim_end_matches('\r').split(':').collect::<Vec<_>>())
        .filter(|fields| !fields[0].is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\n::\nbroken\nbad:x:one:1::\n\xff\xfe:x:7:7::\nwww:x:33:34::/:/bin/false";
    const GROUP: &[u8] =
        b"root:x:0:\nadm:x:4:www,other\nwww-data:x:34:\ntape:x:26:other\nbackup:x:50:root,www\n";

    fn account(user: &str, group: &str, supplementary_gids: &[u32]) -> Result<Account> {
        let lookup = Lookup {
            user,
            group,
            supplementary_gids,
            passwd: PASSWD,
            groups: GROUP,
        };
        lookup.resolve(|path| {
            if path == "/srv" {
                Ok((1000, 1001))
            } else {
                anyhow::bail!("stat {path}")
            }
        })
    }

    fn ids(uid: u32, gid: u32, groups: &[u32]) -> Account {
        Account {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn account_name_alone_has_the_images_groups() {
        assert_eq!(
            account("www", "www", &[9, 4]).unwrap(),
            ids(33, 34, &[9, 4, 50])
        );
    }

    #[test]
    fn account_name_with_group_has_only_what_was_asked_for() {
        assert_eq!(account("www", "tape", &[]).unwrap(), ids(33, 26, &[]));
        assert_eq!(account("www", "0", &[7]).unwrap(), ids(33, 0, &[7]));
    }

    #[test]
    fn account_number_without_entry_is_its_own_group() {
        assert_eq!(account("4242", "4242", &[]).unwrap(), ids(4242, 4242, &[]));
    }

    #[test]
    fn account_number_with_entry_has_its_groups() {
        assert_eq!(account("33", "33", &[]).unwrap(), ids(33, 34, &[4, 50]));
    }

    #[test]
    fn account_root_needs_no_file() {
        let lookup = Lookup {
            user: "root",
            group: "root",
            supplementary_gids: &[],
            passwd: b"",
            groups: b"",
        };
        assert_eq!(
            lookup.resolve(|_| anyhow::bail!("asked")).unwrap(),
            ids(0, 0, &[])
        );
    }

    #[test]
    fn account_path_is_its_owner() {
        assert_eq!(account("/srv", "/srv", &[]).unwrap(), ids(1000, 1001, &[]));
        assert_eq!(account("0", "/srv", &[]).unwrap(), ids(0, 1001, &[]));
        assert!(account("/none", "0", &[]).is_err());
    }

    #[test]
    fn account_unknown_names_say_which() {
        assert!(
            account("nobody", "0", &[])
                .unwrap_err()
                .to_string()
                .contains("nobody")
        );
        assert!(
            account("0", "wheel", &[])
                .unwrap_err()
                .to_string()
                .contains("wheel")
        );
        assert!(account("bad", "bad", &[]).is_err());
    }

    #[test]
    fn account_no_id_is_refused() {
        assert!(account("4294967295", "0", &[]).is_err());
    }

    proptest! {
        #[test]
        fn account_any_files_do_not_panic(
            passwd in prop::collection::vec(any::<u8>(), 0..300), groups in prop::collection::vec(any::<u8>(), 0..300), user in ".*", group in ".*",
        ) {
            let lookup = Lookup { user: &user, group: &group, supplementary_gids: &[], passwd: &passwd, groups: &groups };
            let _ = lookup.resolve(|_| Ok((1, 1)));
        }
    }
}
