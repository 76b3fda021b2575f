use nix::libc::{EEXIST, ENODEV, EPERM};

use super::*;

fn reply(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; (HEADER_BYTES + payload.len()).next_multiple_of(4)];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length((HEADER_BYTES + payload.len()) as u32);
    message.set_message_type(kind);
    message.set_sequence_number(sequence);
    bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    bytes
}

fn refusal(sequence: u32, error: i32) -> Vec<u8> {
    reply(NLMSG_ERROR, sequence, &(-error).to_ne_bytes())
}

#[test]
fn the_first_refused_request_is_the_error_and_the_last_reply_ends_the_exchange() {
    let mut replies = Replies::default();
    replies.read(&[refusal(7, EEXIST), refusal(6, EPERM)].concat(), 5, 3);
    assert!(!replies.ended);
    replies.read(&refusal(8, ENODEV), 5, 3);
    assert!(replies.ended);
    let (number, error) = replies.refused.unwrap();
    assert_eq!((number, error.raw_os_error()), (1, Some(EPERM)));
}

#[test]
fn multipart_replies_are_collected_in_order() {
    let mut replies = Replies::default();
    let parts = [reply(16, 1, b"one"), reply(16, 1, b"four")].concat();
    replies.read(&parts, 1, 0);
    assert_eq!(replies.payloads, [b"one".to_vec(), b"four".to_vec()]);
    replies.read(&reply(NLMSG_DONE, 1, &[0; 4]), 1, 0);
    assert!(replies.ended && replies.refused.is_none());
}

#[test]
fn truncated_messages_are_ignored() {
    let whole = refusal(1, EPERM);
    for length in 0..whole.len() {
        let mut replies = Replies::default();
        replies.read(&whole[..length], 1, 0);
        assert!(!replies.ended && replies.refused.is_none(), "{length}");
    }
}
