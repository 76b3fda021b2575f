use proptest::prelude::*;

use super::*;

#[test]
fn paths_that_mean_the_same_are_equal() {
    for (path, normal) in [
        ("/", "/"),
        ("/admin", "/admin"),
        ("//admin", "/admin"),
        ("/x/../admin", "/admin"),
        ("/x/%2e%2E/admin", "/admin"),
        ("/x/.%2e/admin", "/admin"),
        ("/./admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/%61%64min/", "/admin/"),
        ("/admin/.", "/admin/"),
        ("/admin/x/..", "/admin/"),
        ("/admin..", "/admin.."),
        ("/../../admin", "/admin"),
        ("/..", "/"),
        ("/a//b///c", "/a/b/c"),
        ("/admin%2fx", "/admin%2Fx"),
        ("/%2561dmin", "/%2561dmin"),
        ("/%", "/%25"),
        ("/%4", "/%254"),
        ("/%zz", "/%25zz"),
        ("/%%61A", "/%25aA"),
        ("/%c3%a9", "/%C3%A9"),
        ("*", "*"),
    ] {
        assert_eq!(normalize(path), normal, "{path}");
    }
}

proptest! {
    #[test]
    fn normalization_is_idempotent_and_never_panics(path in "/[a-z./%0-9A-F]{0,30}") {
        let once = normalize(&path).into_owned();
        // Decoding may produce a new percent sign only from %25, which stays encoded.
        prop_assert_eq!(normalize(&once).into_owned(), once.clone());
    }
}
