//! Tar formats and metadata, as old and unusual programs write them.

use tar::{EntryType, Header};
use tucano_image_builder::{Compression, Entry, Kind, Layer};

use crate::kit::{Case, case, tar_case};

/// A member of a tar with its raw header.
fn member(header: &mut Header, content: &[u8]) -> Vec<u8> {
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn header(path: &str, kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A tar of these members, with its end.
fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.extend([0; 1024]);
    tar
}

fn plain(path: &str) -> Header {
    header(path, EntryType::Regular)
}

fn old_tar() -> Vec<u8> {
    let mut old = Header::new_old();
    for (field, value) in [
        (0, &b"dir/"[..]),
        (100, b"000755 "),
        (108, b"     0 "),
        (116, b"0"),
    ] {
        old.as_mut_bytes()[field..field + value.len()].copy_from_slice(value);
    }
    old.as_mut_bytes()[156] = 0;
    let mut file = Header::new_old();
    file.as_mut_bytes()[..5].copy_from_slice(b"dir/f");
    file.as_mut_bytes()[100..107].copy_from_slice(b"   644 ");
    tar(&[member(&mut old, b""), member(&mut file, b"x")])
}

fn signed_checksum() -> Vec<u8> {
    let mut odd = header("caf", EntryType::Regular);
    odd.as_old_mut().name[3] = 0xe9;
    let mut bytes = member(&mut odd, b"x");
    let sum: i64 = bytes[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| match (148..156).contains(&at) {
            true => i64::from(b' '),
            false => i64::from(byte.cast_signed()),
        })
        .sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar(&[bytes, member(&mut plain("f"), b"x")])
}

fn changed(path: &str, change: impl Fn(&mut Header)) -> Vec<u8> {
    let mut header = plain(path);
    change(&mut header);
    tar(&[member(&mut header, b"x")])
}

fn of(entries: &[Entry]) -> Vec<u8> {
    Layer::new(entries, Compression::None).unwrap().blob
}

/// Tars that are odd as a whole.
fn formats() -> Vec<Case> {
    let f = [("f", "file 644 0:0 x")];
    let mut prefixed = plain("f");
    prefixed.as_ustar_mut().unwrap().prefix[..3].copy_from_slice(b"a/b");
    let global = member(
        &mut header("pax_global_header", EntryType::XGlobalHeader),
        b"52 comment=1234567890123456789012345678901234567890\n",
    );
    let long = "n/".repeat(80) + "f";
    let gnu_long = member(
        &mut header("././@LongLink", EntryType::GNULongName),
        format!("{long}\0").as_bytes(),
    );
    let mut two = of(&[Entry::file("f", "x")]);
    two.extend(of(&[Entry::file("second", "x")]));
    let mut contiguous = header("f", EntryType::Continuous);
    let whole = of(&[Entry::file("f", "x")]);
    vec![
        tar_case("a tar of the seventies", &old_tar())
            .has(&[("dir", "dir 755 0:0"), ("dir/f", "file 644 0:0 x")]),
        tar_case("a checksum of signed bytes", &signed_checksum()).has(&f),
        tar_case("a prefix of ustar", &tar(&[member(&mut prefixed, b"x")]))
            .has(&[("a/b/f", "file 644 0:0 x")]),
        tar_case(
            "a global header of git archive",
            &tar(&[global, member(&mut plain("f"), b"x")]),
        )
        .has(&f),
        tar_case(
            "a long name of GNU tar",
            &tar(&[gnu_long, member(&mut plain("short"), b"x")]),
        )
        .has(&[("short", "absent")]),
        tar_case("two tars in one layer", &two)
            .has(&[("f", "file 644 0:0 x"), ("second", "absent")]),
        tar_case("no end of the archive", &whole[..1024]).has(&f),
        tar_case("no padding after the last file", &whole[..513]).has(&f),
        tar_case("a contiguous file", &tar(&[member(&mut contiguous, b"x")])).has(&f),
        tar_case("an empty tar", &[0; 1024]),
        tar_case("an empty stream", b""),
        tar_case("a truncated file", &whole[..512]).refused("malformed", "it ends within"),
        tar_case(
            "text in place of a tar",
            b"this is no tar, and will never be one",
        )
        .refused("malformed", "not a tar"),
        tar_case(
            "an unknown type",
            &tar(&[member(&mut header("f", EntryType::new(b'Z')), b"")]),
        )
        .refused("malformed", "'Z'"),
    ]
}

/// Owners, modes, times and kinds.
fn metadata() -> Vec<Case> {
    vec![
        tar_case(
            "a mode with the type of the file",
            &changed("f", |it| it.set_mode(0o100_644)),
        )
        .has(&[("f", "file 644 0:0 x")]),
        tar_case(
            "an owner in base 256",
            &changed("f", |it| it.set_uid(3_000_000)),
        )
        .has(&[("f", "file 644 3000000:0 x")]),
        case(
            "the owners of OpenShift and nobody",
            [vec![
                Entry::file("a", "x").owner(1_000_630_000, 0),
                Entry::file("b", "x").owner(65_534, 65_534),
            ]],
        )
        .has(&[
            ("a", "file 644 1000630000:0 x"),
            ("b", "file 644 65534:65534 x"),
        ]),
        case(
            "an owner that means unchanged",
            [vec![Entry::file("f", "x").pax("uid", "4294967295")]],
        )
        .refused("malformed", "out of range"),
        case(
            "times before 1970 and far away",
            [vec![
                Entry::file("a", "x").pax("mtime", "-1.5"),
                Entry::file("b", "x").pax("mtime", "4102444800.000000001"),
                Entry::file("c", "x").pax("atime", "1.5").pax("ctime", "2"),
            ]],
        )
        .has(&[("a", "file 644 0:0 x"), ("b", "file 644 0:0 x")]),
        tar_case(
            "empty numbers",
            &changed("f", |it| {
                it.as_mut_bytes()[108..124].fill(0);
                it.as_mut_bytes()[136..148].fill(b' ');
            }),
        )
        .has(&[("f", "file 644 0:0 x")]),
        case(
            "a file twice, and a directory twice",
            [vec![
                Entry::file("f", "first").mode(0o600),
                Entry::file("f", "second").mode(0o640),
                Entry::directory("d").mode(0o700),
                Entry::file("d/x", "x"),
                Entry::directory("d").mode(0o711),
            ]],
        )
        .has(&[
            ("f", "file 640 0:0 second"),
            ("d", "dir 711 0:0"),
            ("d/x", "file 644 0:0 x"),
        ]),
        case(
            "a directory that becomes a file, and back",
            [vec![
                Entry::file("a/x", "x"),
                Entry::file("a", "file"),
                Entry::file("b", "file"),
                Entry::file("b/../c", "x"),
                Entry::directory("b"),
            ]],
        )
        .has(&[("a", "file 644 0:0 file"), ("b", "dir 755 0:0")]),
        case(
            "pipes and devices",
            [vec![
                Entry::new("p", Kind::Fifo),
                Entry::new("null", Kind::CharDevice { major: 1, minor: 3 }),
                Entry::new(
                    "disk",
                    Kind::BlockDevice {
                        major: 259,
                        minor: 70_000,
                    },
                ),
            ]],
        )
        .has(&[("p", "fifo 644 0:0")]),
        case(
            "a file of zeros",
            [vec![Entry::file("zeros", vec![0; 300_001])]],
        )
        .has(&[("zeros", "file 644 0:0 300001 bytes")]),
    ]
}

/// Extended attributes.
fn attributes() -> Vec<Case> {
    let capability = {
        let mut value = vec![0; 20];
        (value[0], value[3], value[5]) = (1, 2, 4);
        value
    };
    let attribute = |name: &str, value: &[u8]| {
        Entry::file("f", "x").pax(&format!("SCHILY.xattr.{name}"), value)
    };
    vec![
        case(
            "capabilities of a file",
            [vec![attribute("security.capability", &capability)]],
        )
        .has(&[("f", "file 644 0:0 x")]),
        case(
            "attributes for SELinux, IMA and ACLs",
            [vec![
                attribute("security.selinux", b"system_u:object_r:bin_t:s0\0")
                    .pax("SCHILY.xattr.security.ima", vec![3; 40])
                    .pax("SCHILY.xattr.system.posix_acl_access", vec![2, 0, 0, 0])
                    .pax("SCHILY.acl.access", "user::rw-")
                    .pax("LIBARCHIVE.xattr.user.a", "Yg==")
                    .pax("RHT.security.selinux", "x"),
            ]],
        )
        .has(&[
            ("f", "file 644 0:0 x"),
            ("f", "security.ima=No data available (os error 61)"),
        ]),
        case(
            "attributes that overlayfs would obey",
            [
                vec![Entry::file("d/old", "x")],
                vec![
                    Entry::directory("d")
                        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
                        .pax("SCHILY.xattr.user.overlay.opaque", "y")
                        .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
                ],
            ],
        )
        .has(&[("d/old", "file 644 0:0 x")]),
        case(
            "an attribute of users",
            [vec![attribute("user.mime", b"text")]],
        )
        .has(&[("f", "user.mime=text")]),
        case(
            "an attribute twice",
            [vec![
                attribute("user.a", b"1").pax("SCHILY.xattr.user.a", "2"),
            ]],
        )
        .has(&[("f", "user.a=2")]),
        case(
            "an attribute that is too large",
            [vec![attribute("user.a", &[b'x'; 70_000])]],
        )
        .refused("malformed", "extended attributes are too large"),
        case(
            "malformed capabilities",
            [vec![attribute("security.capability", b"none")]],
        )
        .refused("malformed", "the kernel refuses its values"),
    ]
}

pub(crate) fn cases() -> Vec<Case> {
    [formats(), metadata(), attributes()]
        .into_iter()
        .flatten()
        .collect()
}
