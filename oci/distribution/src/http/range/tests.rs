use super::*;

fn headers(all: &[(header::HeaderName, &str)]) -> HeaderMap {
    all.iter()
        .map(|(name, value)| (name.clone(), value.parse().unwrap()))
        .collect()
}

#[test]
fn a_range_is_within_the_blob() {
    let part = |spec: &str, bytes| requested(&headers(&[(header::RANGE, spec)]), bytes);
    for (spec, expected) in [
        ("bytes=0-0", Some((0, 1))),
        ("bytes=2-5", Some((2, 4))),
        ("bytes=2-", Some((2, 8))),
        ("bytes=-3", Some((7, 3))),
        ("bytes=-30", Some((0, 10))),
        ("bytes=5-99999999999999999", Some((5, 5))),
        ("bytes=5-18446744073709551615", Some((5, 5))),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("bytes=+1-2", None),
        ("lines=1-2", None),
    ] {
        assert_eq!(part(spec, 10).unwrap(), expected, "{spec}");
    }
    for spec in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
        assert_eq!(part(spec, 10).unwrap_err().status().as_u16(), 416, "{spec}");
    }
    assert_eq!(requested(&HeaderMap::new(), 10).unwrap(), None);
}

#[test]
fn a_piece_begins_where_the_last_one_ended() {
    let piece = |range: &str, length: &str| {
        of_piece(
            &headers(&[
                (header::CONTENT_RANGE, range),
                (header::CONTENT_LENGTH, length),
            ]),
            5,
        )
    };
    assert_eq!(piece("5-9", "5").unwrap(), Some(5));
    assert_eq!(piece("bytes 5-9/20", "5").unwrap(), Some(5));
    for (range, length, status) in [
        ("0-4", "5", 416),
        ("6-9", "4", 416),
        ("5-9", "4", 400),
        ("5-4", "0", 400),
        ("5", "1", 400),
        ("a-b", "1", 400),
        ("5-18446744073709551615", "1", 400),
    ] {
        assert_eq!(
            piece(range, length).unwrap_err().status().as_u16(),
            status,
            "{range}"
        );
    }
    assert_eq!(of_piece(&HeaderMap::new(), 5).unwrap(), None);
}
