use super::*;

fn segment(address: (u64, u64), offset: u64, flags: &str) -> Segment {
    Segment {
        address,
        offset,
        is_executable: flags.contains('x'),
        is_writable: flags.contains('w'),
    }
}

fn file_regions(address: (u64, u64), offset: u64, is_executable: bool) -> Region {
    let content = Content::File {
        offset,
        is_executable,
    };
    Region { address, content }
}

fn changed(address: (u64, u64), is_writable: bool) -> Region {
    let content = Content::Changed { is_writable };
    Region { address, content }
}

#[test]
fn relro_ends_at_a_page_boundary() {
    // Layout of GNU ld: one writable segment, and constants behind the code.
    let loaded = Loaded {
        segments: vec![
            segment((0x1000, 0x1800), 0, "r"),
            segment((0x2000, 0x4fbd), 0x1000, "rx"),
            segment((0x5000, 0x650c), 0x4000, "r"),
            segment((0x8a50, 0xb100), 0x6a50, "rw"),
        ],
        relocated: (0x8a50, 0xa800),
    };
    let expected = [
        file_regions((0x1000, 0x2000), 0, false),
        file_regions((0x2000, 0x5000), 0x1000, true),
        file_regions((0x5000, 0x7000), 0x4000, false),
        changed((0x8000, 0xa000), false),
        changed((0xa000, 0xc000), true),
    ];
    assert_eq!(regions(&loaded, 0x1000), expected);
}

#[test]
fn relro_may_be_a_segment_of_its_own() {
    // Layout of LLVM's lld.
    let loaded = Loaded {
        segments: vec![
            segment((0x1000, 0x2100), 0, "r"),
            segment((0x30c0, 0x4000), 0x10c0, "rx"),
            segment((0x5ee0, 0x6af8), 0x2ee0, "rw"),
            segment((0x7af8, 0x8100), 0x3af8, "rw"),
        ],
        relocated: (0x5ee0, 0x7000),
    };
    let expected = [
        file_regions((0x1000, 0x3000), 0, false),
        file_regions((0x3000, 0x4000), 0x1000, true),
        changed((0x5000, 0x7000), false),
        changed((0x7000, 0x9000), true),
    ];
    assert_eq!(regions(&loaded, 0x1000), expected);
}

#[test]
fn loaded_segments_are_mapped() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let begins: Vec<_> = maps
        .lines()
        .filter_map(|map| map.split('-').next())
        .collect();
    let regions = own_regions();
    assert!(regions.len() >= 3, "{regions:x?}");
    for region in regions {
        let begin = format!("{:x}", region.address.0);
        assert!(
            begins.iter().any(|it| it.trim_start_matches('0') == begin),
            "{region:x?}\n{maps}"
        );
    }
}
