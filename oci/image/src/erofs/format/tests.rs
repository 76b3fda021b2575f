use super::*;

fn entries(names: &[String]) -> Vec<Dirent<'_>> {
    let entries = names.iter().map(|name| Dirent {
        name: name.as_bytes(),
        inode: 1,
        mode: S_IFREG,
    });
    entries.collect()
}

#[test]
fn directories_are_split_where_a_block_is_full() {
    // Each takes 12 + 20 bytes: 16 of them fill a block exactly.
    let names: Vec<String> = (0..33).map(|number| format!("{number:020}")).collect();
    let entries = entries(&names);
    let sizes: Vec<(usize, usize)> = split_directory(&entries)
        .map(|(block, bytes)| (block.len(), bytes))
        .collect();
    assert_eq!(sizes, [(16, 512), (16, 512), (1, 32)]);
    assert_eq!(directory_bytes(&entries), 1024 + 32);
    let mut block = Vec::new();
    directory_block(&entries[..16], &mut block);
    assert_eq!(block.len(), 512);
    assert_eq!(&block[8..10], (12_u16 * 16).to_le_bytes());
}

#[test]
fn the_longest_names_have_blocks_of_their_own() {
    let names = ["a".repeat(255), "b".repeat(255)];
    let entries = entries(&names);
    assert_eq!(split_directory(&entries).count(), 2);
    assert_eq!(directory_bytes(&entries), 512 + 267);
}

#[test]
fn attributes_are_encoded_with_a_header() {
    let one = xattrs([("user.ab", &b"xyz"[..])].into_iter()).unwrap();
    assert_eq!(one.len(), 12 + 12);
    assert_eq!(&one[12..], b"\x02\x01\x03\x00abxyz\0\0\0");
    assert!(xattrs(std::iter::empty()).unwrap().is_empty());
    assert_eq!(xattrs([("system.acl", &b""[..])].into_iter()), None);
    let huge = vec![0; 65_535];
    let names = ["user.a", "user.b", "user.c", "user.d", "user.e"];
    let five = names.into_iter().map(|name| (name, &huge[..]));
    assert_eq!(xattrs(five), None);
}

#[test]
fn device_numbers_use_the_kernels_encoding() {
    assert_eq!(device_number((0, 0)), 0);
    assert_eq!(device_number((1, 3)), 0x103);
    assert_eq!(device_number((259, 0x1_2345)), 0x1230_0045 | 259 << 8);
}
