use super::*;

#[test]
fn too_many_groups_are_refused() {
    let group = |count: usize| -> String {
        (0..count)
            .map(|gid| format!("g{gid}:x:{gid}:web\n"))
            .collect()
    };
    let groups = groups_of("web", &group(GROUPS_LIMIT)).unwrap();
    assert_eq!(groups.len(), GROUPS_LIMIT);
    let refused = groups_of("web", &group(GROUPS_LIMIT + 1));
    assert_eq!(refused, Err(Error::TooManyGroups));
}

#[test]
fn a_line_that_is_too_long_is_skipped() {
    let long = "m,".repeat(LINE_LIMIT_BYTES);
    let group = format!("long:x:1:{long}web\nshort:x:2:web\n");
    assert_eq!(groups_of("web", &group).unwrap(), [2]);
    assert_eq!(gid_of("long", &group), None);
}

#[test]
fn the_first_line_about_a_user_counts() {
    let passwd = "a:x:1:1::/one:\na:x:2:2::/two:\nb:x:1:3::/three:\n";
    assert_eq!(home_of(1, passwd), Some("/one"));
    assert_eq!(home_of(3, passwd), None);
    let group = "g:x::\ng:x:4:\ng:x:5:\n";
    assert_eq!(gid_of("g", group), Some(4));
}
