use super::*;

fn sparse(bytes: u64, numbers: &[u64]) -> Sparse {
    Sparse::from_numbers(bytes, numbers).unwrap()
}

#[test]
fn extents_must_be_ordered_within_the_file_and_as_long_as_the_data() {
    assert_eq!(sparse(100, &[0, 10, 50, 50, 100, 0]).check(60), Ok(()));
    assert_eq!(sparse(100, &[]).check(0), Ok(()));
    for (bytes, numbers, stored) in [
        (100, &[50, 10, 0, 10][..], 20),
        (100, &[0, 20, 10, 20], 40),
        (100, &[90, 11], 11),
        (100, &[u64::MAX, 2], 2),
        (100, &[0, 10], 11),
    ] {
        assert!(sparse(bytes, numbers).check(stored).is_err(), "{numbers:?}");
    }
    assert!(Sparse::from_numbers(9, &[1]).is_err());
}

#[test]
fn records_of_each_version_are_parsed() {
    let records = |records: &[(&str, &str)]| {
        let mut all = Records::default();
        for (key, value) in records {
            all.add(key, value.as_bytes())?;
        }
        Some(all.map())
    };
    let known = Ok(Map::Known(sparse(9, &[1, 2, 4, 5])));
    let old = [
        ("size", "9"),
        ("numblocks", "2"),
        ("offset", "1"),
        ("numbytes", "2"),
    ];
    let rest = [("offset", "4"), ("numbytes", "5")];
    assert_eq!(records(&[&old[..], &rest].concat()), Some(known));
    let known = Ok(Map::Known(sparse(9, &[1, 2, 4, 5])));
    assert_eq!(records(&[("size", "9"), ("map", "1,2,4,5")]), Some(known));
    let newest = [("major", "1"), ("minor", "0"), ("realsize", "9")];
    assert_eq!(records(&newest), Some(Ok(Map::InData(9))));
    for bad in [
        &[("map", "1,2")][..],
        &[("size", "9"), ("map", "1")],
        &[("size", "9"), ("major", "2")],
    ] {
        assert!(records(bad).unwrap().is_err(), "{bad:?}");
    }
    assert_eq!(records(&[("map", "1,x")]), None);
}
