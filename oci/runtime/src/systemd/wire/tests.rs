use super::*;

#[test]
fn a_call_is_laid_out_as_specified() {
    let mut body = Writer::default();
    body.text("hi");
    let bytes = call(7, &[(PATH, "/a"), (MEMBER, "M")], "s", &body);
    let expected = [
        &b"l\x01\x00\x01\x07\0\0\0\x07\0\0\0\x27\0\0\0"[..],
        b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0",
        b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0",
        b"\x08\x01g\0\x01s\0\0",
        b"\x02\0\0\0hi\0",
    ];
    assert_eq!(bytes, expected.concat());
    let fixed = bytes[..FIXED_BYTES].try_into().unwrap();
    assert_eq!(Message::length(&fixed).unwrap(), bytes.len());
}

#[test]
fn properties_are_aligned() {
    let mut writer = Writer::default();
    writer.properties(&[
        ("A", Value::Flag(true)),
        ("B", Value::Number(1 << 40)),
        ("C", Value::Numbers(vec![5])),
        ("D", Value::Bytes(vec![9])),
    ]);
    let expected = [
        &b"\x4d\0\0\0\0\0\0\0"[..],
        b"\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0",
        b"\x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0",
        b"\x01\0\0\0C\0\x02au\0\0\0\x04\0\0\0\x05\0\0\0\0\0\0\0",
        b"\x01\0\0\0D\0\x02ay\0\0\0\x01\0\0\0\x09",
    ];
    let expected = expected.concat();
    assert_eq!(writer.0[8..], expected[8..]);
    assert_eq!(writer.0[0] as usize, expected.len() - 8);
}

#[test]
fn messages_are_read_in_both_byte_orders() {
    let little =
        b"l\x04\x01\x01\x24\0\0\0\x01\0\0\0\x13\0\0\0\x03\x01s\0\x0a\0\0\0JobRemoved\0\0\0\0\0\0\
            \x05\0\0\0\x02\0\0\0/j\0\0\x02\0\0\0ab\0\0\x04\0\0\0done\0";
    let message = Message::parse(little).unwrap();
    assert_eq!(
        (message.kind, message.name.as_str()),
        (SIGNAL, "JobRemoved")
    );
    let job = ("/j".to_owned(), "done".to_owned());
    assert_eq!(message.removed_job().unwrap(), job);
    let big = b"B\x03\x01\x01\0\0\0\x06\0\0\0\x01\0\0\0\x17\x05\x01u\0\0\0\0\x09\x04\x01s\0\0\0\0\x06oh.no!\0\0\
            \0\0\0\x01x\0";
    let message = Message::parse(big).unwrap();
    assert_eq!((message.reply_to, message.name.as_str()), (9, "oh.no!"));
    assert_eq!(message.text().unwrap(), "x");
}

#[test]
fn truncated_messages_and_wrong_lengths_are_refused() {
    let whole = b"l\x04\x01\x01\x0c\0\0\0\x01\0\0\0\x13\0\0\0\x03\x01s\0\x0a\0\0\0JobRemoved\0\0\0\0\0\0\x05\0\0\0";
    for length in 0..whole.len() {
        let parsed = Message::parse(&whole[..length]);
        assert!(parsed.is_err() || parsed.unwrap().removed_job().is_err());
    }
    let mut long = *b"l\x04\x01\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff";
    assert!(Message::length(&long).is_err());
    assert!(Message::parse(&long).is_err());
    long[0] = b'x';
    assert!(Message::length(&long).is_err());
}
