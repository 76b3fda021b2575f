use super::*;

#[test]
fn numbers_are_octal_or_base_256() {
    assert_eq!(number(b"0000644\0", "it"), Ok(0o644));
    assert_eq!(number(b" 644 \0\0\0", "it"), Ok(0o644));
    assert_eq!(number(b"\0\0\0\0\0\0\0\0", "it"), Ok(0));
    assert_eq!(number(b"\x80\0\0\0\0\0\x01\x02", "it"), Ok(258));
    assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe", "it"), Ok(-2));
    for bad in [
        &b"0000999\0"[..],
        b"-1\0\0\0\0\0\0",
        b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(number(bad, "it").is_err(), "{bad:?}");
    }
}

#[test]
fn times_before_1970_have_nanoseconds_too() {
    let time = |seconds, nanoseconds| {
        Some(Time {
            seconds,
            nanoseconds,
        })
    };
    assert_eq!(Time::parse(b"12"), time(12, 0));
    assert_eq!(Time::parse(b"12.25"), time(12, 250_000_000));
    assert_eq!(Time::parse(b"1.1234567899"), time(1, 123_456_789));
    assert_eq!(Time::parse(b"-1.25"), time(-2, 750_000_000));
    for bad in [&b""[..], b"x", b"1.x", b"99999999999999999999"] {
        assert_eq!(Time::parse(bad), None);
    }
}

#[test]
fn records_are_parsed() {
    let mut extension = Extension::default();
    let records = b"12 path=a/b\n10 uid=70\n28 SCHILY.xattr.user.a=x\n=y\n19 comment=ignored\n";
    extension.add_records(records).unwrap();
    assert_eq!(extension.path.as_deref(), Some(&b"a/b"[..]));
    assert_eq!(extension.uid, Some(70));
    assert_eq!(extension.xattrs, [("user.a".to_owned(), b"x\n=y".to_vec())]);
}

#[test]
fn malformed_records_are_refused() {
    for bad in [
        &b"x"[..],
        b"5 a=b",
        b"6 a=b\n\n",
        b"99 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6  a=b\n",
        b"11 size=-1\n",
        b"10 uid=1x\n",
        b"12 mtime=1.x\n",
        b"99999999999999999999 a=b\n",
    ] {
        assert!(
            Extension::default().add_records(bad).is_err(),
            "{:?}",
            bad.escape_ascii().to_string()
        );
    }
}

#[test]
fn an_owner_that_means_unchanged_is_refused() {
    let mut header = Header::new_ustar();
    let extension = Extension {
        uid: Some(u64::from(u32::MAX)),
        ..Extension::default()
    };
    assert!(
        Member::new(&header, extension)
            .unwrap_err()
            .contains("out of range")
    );
    header.set_entry_type(EntryType::new(b'Z'));
    assert!(
        Member::new(&header, Extension::default())
            .unwrap_err()
            .contains("'Z'")
    );
}
