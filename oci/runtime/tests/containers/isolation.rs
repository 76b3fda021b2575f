//! What a container sees and may do.

use tucano_testkit::{ROOT, needs, tool};

use super::harness::{Case, field};

#[test]
fn it_has_no_privilege_at_all() {
    if !needs(&[ROOT, tool("ldd")]) {
        return;
    }
    let (exit, status) = Case::new(&["cat", "/proc/self/status"]).run();
    assert_eq!(exit.code, Some(0), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "Seccomp"), "2");
    assert_eq!(field(&status, "Pid"), "1");
}
