use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;
use archive::{Entry, Kind, Xattrs};

use super::{Place, extract, reframe};

/// A tar of these entries; every file says `text`, and is set-user-id.
fn tar(entries: &[(&str, Kind)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind) in entries {
        let entry = Entry {
            path: path.as_bytes(),
            kind: *kind,
            mode: 0o4755,
            uid: 3,
            gid: 4,
            mtime: (7, 5),
            xattrs: &Xattrs::from([(b"user.a".to_vec(), b"b".to_vec())]),
        };
        entry
            .append(&mut tar, &b"text"[..])
            .expect("room in memory");
    }
    tar.into_inner().expect("room in memory")
}

const TEXT: Kind = Kind::File(4);

fn extracted(entries: &[(&str, Kind)], folder: &Path, name: Option<&str>) -> Result<u64> {
    let name = name.map(OsStr::new);
    extract(&*tar(entries), "r", Place { folder, name })
}

#[test]
fn extract_tree_is_the_callers_without_devices_and_set_id_bits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("new"))?;
    fs::write(path("new/a"), "old")?;
    let entries = [
        ("r", Kind::Directory),
        ("r/a", TEXT),
        ("r/b", Kind::HardLink(b"r/a")),
        ("./r/d/", Kind::Directory),
        ("r/d/l", Kind::Symlink(b"/etc/passwd")),
        ("r/null", Kind::Character(1, 3)),
        ("r/pipe", Kind::Fifo),
    ];
    assert_eq!(extracted(&entries, folder.path(), Some("new"))?, 2);
    assert_eq!(fs::read(path("new/b"))?, b"text");
    let found = fs::metadata(path("new/a"))?;
    assert_eq!(
        (found.mode() & 0o7777, found.nlink(), found.mtime()),
        (0o755, 2, 7)
    );
    assert_eq!(found.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(xattr::list(path("new/a"))?.count(), 0);
    assert_eq!(fs::read_link(path("new/d/l"))?, Path::new("/etc/passwd"));
    assert!(!path("new/null").exists() && !path("new/pipe").exists());
    Ok(())
}

#[test]
fn extract_entry_that_leads_elsewhere_is_refused_and_nothing_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let inside = folder.path().join("inside");
    let elsewhere = folder.path().join("elsewhere");
    let target = elsewhere.to_str().expect("a name of ours");
    let hostile: [&[(&str, Kind)]; 8] = [
        &[("../elsewhere", TEXT)],
        &[("r/../../elsewhere", TEXT)],
        &[("r", Kind::Directory), ("other", TEXT)],
        &[
            ("r", Kind::Directory),
            ("r/l", Kind::Symlink(target.as_bytes())),
            ("r/l/x", TEXT),
        ],
        &[("r", Kind::Symlink(target.as_bytes())), ("r/x", TEXT)],
        &[
            ("r", Kind::Directory),
            ("r/h", Kind::HardLink(b"r/../../secret")),
        ],
        &[("r", Kind::Directory), ("r/h", Kind::HardLink(b"/secret"))],
        &[
            ("r", Kind::Directory),
            ("r/s", Kind::Symlink(b"..")),
            ("r/h", Kind::HardLink(b"r/s/secret")),
        ],
    ];
    for entries in hostile {
        let _ = fs::remove_dir_all(&inside);
        fs::create_dir(&inside)?;
        fs::write(folder.path().join("secret"), "")?;
        fs::create_dir_all(&elsewhere)?;
        assert!(
            extracted(entries, &inside, Some("n")).is_err(),
            "{entries:?}"
        );
        assert_eq!(fs::read_dir(&elsewhere)?.count(), 0, "{entries:?}");
        assert_eq!(fs::metadata(folder.path().join("secret"))?.nlink(), 1);
    }
    Ok(())
}

#[test]
fn extract_through_a_link_that_was_there_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let elsewhere = tempfile::tempdir()?;
    symlink(elsewhere.path(), folder.path().join("d"))?;
    let entries = [
        ("r", Kind::Directory),
        ("r/d", Kind::Directory),
        ("r/d/x", TEXT),
    ];
    assert!(extracted(&entries, folder.path(), None).is_err());
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0);
    // A file takes the place of a link, not of what it leads to.
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "safe")?;
    symlink(&victim, folder.path().join("f"))?;
    extracted(&[("r", TEXT)], folder.path(), Some("f"))?;
    assert_eq!(fs::read(&victim)?, b"safe");
    assert_eq!(fs::read(folder.path().join("f"))?, b"text");
    Ok(())
}

#[test]
fn extract_file_as_the_content_of_a_folder_or_nothing_at_all_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mode = fs::metadata(folder.path())?.permissions().mode();
    assert!(extracted(&[("r", TEXT)], folder.path(), None).is_err());
    assert!(extracted(&[], folder.path(), None).is_err());
    extracted(
        &[("r", Kind::Directory), ("r/x", TEXT)],
        folder.path(),
        None,
    )?;
    assert_eq!(fs::metadata(folder.path())?.permissions().mode(), mode);
    let mut cut = tar(&[("r", Kind::File(5000))]);
    cut.truncate(2000);
    let name = Some(OsStr::new("cut"));
    assert!(
        extract(
            &*cut,
            "r",
            Place {
                folder: folder.path(),
                name
            }
        )
        .is_err()
    );
    Ok(())
}

#[test]
fn reframe_file_that_promises_more_than_comes_is_an_error_and_not_filled_up() {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..1].copy_from_slice(b"r");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(1 << 50);
    header.set_cksum();
    let cut = [header.as_bytes().as_slice(), &[7; 700]].concat();
    let mut to = tar::Builder::new(std::io::sink());
    let error = reframe(&*cut, "r", &mut to).expect_err("a petabyte is missing");
    assert!(format!("{error:#}").contains("cut short"), "{error:#}");
}

#[test]
fn reframe_tree_is_the_same_again_and_nothing_beside_it_passes() -> Result<()> {
    let long = "n".repeat(200);
    let entries = [
        ("r", Kind::Directory),
        ("r/null", Kind::Character(1, 3)),
        ("r/a", TEXT),
        ("r/b", Kind::HardLink(b"r/a")),
        ("r/l", Kind::Symlink(b"/a")),
        (&*format!("r/{long}"), TEXT),
    ];
    let original = tar(&entries);
    let reframed = |tar: &[u8]| -> Result<Vec<u8>> {
        let mut to = tar::Builder::new(Vec::new());
        reframe(tar, "r", &mut to)?;
        Ok(to.into_inner()?)
    };
    assert!(reframed(&original)? == original);
    for forged in ["manifest", "../r/x", "rx", "r/../manifest"] {
        let forged = tar(&[("r", Kind::Directory), (forged, TEXT)]);
        assert!(reframed(&forged).is_err());
    }
    assert!(reframed(&tar(&[("r", Kind::HardLink(b"manifest"))])).is_err());
    Ok(())
}
