use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\n\
                      huge:x:99999999999:1::/:\n";
const GROUP: &str = "root:x:0:\nwww:x:34:\nlogs:x:50:adm,web\ntls:x:51:web\n";

fn look_up(text: &str, passwd: &str, group: &str) -> Result<Ids, Error> {
    Wanted::parse(text)?.ids(passwd, group)
}

#[test]
fn a_name_brings_its_ids_groups_and_home() {
    let user = look_up("web", PASSWD, GROUP).unwrap();
    let expected = Ids {
        uid: 33,
        gid: 34,
        groups: vec![50, 51],
        home: Some("/srv".into()),
    };
    assert_eq!(user, expected);
    assert_eq!(look_up("33", PASSWD, GROUP).unwrap(), expected);
}

#[test]
fn an_empty_part_is_as_if_it_were_missing() {
    for (text, uid, gid, groups) in [
        ("1000:", 1000, 0, [].as_slice()),
        ("web:", 33, 34, &[50, 51]),
        (":1000", 0, 1000, &[]),
        ("0:", 0, 0, &[]),
        (":www", 0, 34, &[]),
        (":", 0, 0, &[]),
        ("", 0, 0, &[]),
    ] {
        let user = look_up(text, PASSWD, GROUP).unwrap();
        assert_eq!((user.uid, user.gid), (uid, gid), "{text:?}");
        assert_eq!(user.groups, groups, "{text:?}");
    }
}

/// A group without members lists nobody: `www:x:34:` is not a group of a user without a name.
#[test]
fn a_user_without_an_account_is_in_no_group() {
    for text in ["", ":", "0", "7", "007"] {
        let user = look_up(text, "", "www:x:34:\nseven:x:35:7,\n").unwrap();
        assert_eq!((user.gid, user.groups), (0, vec![]), "{text:?}");
    }
    let nameless = look_up("0", ":x:0:0::/:\n", "www:x:34:\nx:x:1:,\n").unwrap();
    assert_eq!(nameless.groups, []);
}

#[test]
fn digits_are_an_id_and_never_a_name() {
    let passwd = "1000:x:5:6::/home:\nfive:x:1000:7::/five:\n";
    let group = "8:x:9:\nnine:x:8:1000\nten:x:10:five\n";
    let user = look_up("1000", passwd, group).unwrap();
    assert_eq!((user.uid, user.gid), (1000, 7));
    assert_eq!(user.groups, [10]);
    assert_eq!(look_up("five:8", passwd, group).unwrap().gid, 8);
    assert_eq!(look_up("0001000", passwd, group).unwrap().uid, 1000);
    assert_eq!(look_up("5", passwd, group).unwrap().gid, 6);
}

#[test]
fn a_line_needs_only_a_name_and_a_valid_uid() {
    let passwd = "short:x:5\nnogid:x:6::\nrelative:x:7:8::home:/bin/sh\nnohome:x:9:9:::\n\
                  badgid:x:10:ten::/ten:\nnoid:x::1::/:\nnegative:x:-1:1::/:\nword:x:ten:1::/:\n\
                  all:x:4294967295:1::/:\nname\nname:x\n\n# comment:x:1\n+::::::\n";
    for (name, uid, gid, home) in [
        ("short", 5, 0, None),
        ("nogid", 6, 0, None),
        ("relative", 7, 8, None),
        ("nohome", 9, 9, None),
        ("badgid", 10, 0, Some("/ten")),
    ] {
        let user = look_up(name, passwd, "").unwrap();
        let found = (user.uid, user.gid, user.home.as_deref());
        assert_eq!(found, (uid, gid, home), "{name}");
    }
    for name in [
        "noid", "negative", "word", "all", "name", "+", "Short", "short ",
    ] {
        let user = look_up(name, passwd, "");
        assert_eq!(user, Err(Error::NoUser(name.to_owned())));
    }
}

#[test]
fn a_line_of_group_needs_a_valid_gid() {
    let group = "none:x::web\nbad:x:-2:web\nshort:x\nfine:x:8\nmembers:x:9:a,,web ,web\n\
                 root:x:zero:web\n";
    assert_eq!(look_up("web:fine", PASSWD, group).unwrap().gid, 8);
    assert_eq!(look_up("web", PASSWD, group).unwrap().groups, [9]);
    for name in ["none", "bad", "short", "root", "a:b"] {
        let refused = look_up(&format!("0:{name}"), PASSWD, group);
        assert_eq!(refused, Err(Error::NoGroup(name.to_owned())));
    }
}

#[test]
fn a_named_group_replaces_supplementary_groups() {
    let user = look_up("web:logs", PASSWD, GROUP).unwrap();
    assert_eq!((user.gid, user.groups), (50, vec![]));
    assert_eq!(look_up("7:8", PASSWD, GROUP).unwrap().gid, 8);
}

#[test]
fn without_files_a_number_is_fine_and_a_name_is_not() {
    let user = look_up("1234", "", "").unwrap();
    assert_eq!((user.uid, user.gid, user.home), (1234, 0, None));
    let expected = Err(Error::NoUser("who".to_owned()));
    assert_eq!(look_up("who", "", ""), expected);
    assert_eq!(look_up("who:1", PASSWD, GROUP), expected);
    let expected = Err(Error::NoGroup("who".to_owned()));
    assert_eq!(look_up("web:who", PASSWD, GROUP), expected);
}

#[test]
fn numbers_never_wrap_around() {
    for bad in ["4294967295", "4294967296", "18446744073709551616"] {
        let expected = Err(Error::BadId(bad.to_owned()));
        assert_eq!(look_up(bad, "", ""), expected);
        assert_eq!(look_up(&format!("1:{bad}"), "", ""), expected);
        assert_eq!(look_up(&format!(":{bad}"), "", ""), expected);
    }
    assert!(look_up("huge", PASSWD, GROUP).is_err());
    for name in ["-1", "+1", "1.0", "0x1", " 1", "１"] {
        let expected = Err(Error::NoUser(name.to_owned()));
        assert_eq!(look_up(name, PASSWD, GROUP), expected);
    }
}

#[test]
fn a_text_is_bounded_and_may_have_any_character() {
    let long = "u".repeat(100_000);
    assert_eq!(look_up(&long, PASSWD, GROUP), Err(Error::TooLong(100_000)));
    let digits = "1".repeat(513);
    assert_eq!(look_up(&digits, PASSWD, GROUP), Err(Error::TooLong(513)));
    let name = "u".repeat(512);
    let passwd = format!("{name}:x:1:1::/:\n");
    assert_eq!(look_up(&name, &passwd, "").unwrap().uid, 1);
    let refused = look_up("web\0", PASSWD, GROUP).unwrap_err();
    assert!(refused.to_string().contains("\"web\\0\""), "{refused}");
    let passwd = "a\0b:x:1:1::/:\r\nünicode:x:2:2::/:\r\n";
    assert_eq!(look_up("a\0b", passwd, "").unwrap().uid, 1);
    assert_eq!(look_up("ünicode", passwd, "").unwrap().uid, 2);
}
