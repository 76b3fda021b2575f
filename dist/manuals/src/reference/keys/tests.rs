use super::*;

#[test]
fn a_key_has_a_heading_and_its_facts() {
    let key = Key {
        name: "memory",
        default: "\"256MiB\"",
        bounds: Bounds::AtLeast("4MiB"),
        meaning: "The limit.",
        change: "the processes are replaced",
    };
    assert_eq!(
        describe(&[key]),
        "### `memory`\n\nThe limit.\n\nDefault: `\"256MiB\"`. Values: at least `4MiB`. \
             A change: the processes are replaced.\n\n"
    );
}

#[test]
fn lines_are_not_long() {
    let text = wrapped(&"word ".repeat(50));
    assert!(text.lines().all(|line| line.len() <= WIDTH) && text.lines().count() > 1);
}

#[test]
fn a_step_leaves_the_bounds() {
    assert_eq!(step("1", -1).as_deref(), Some("0"));
    assert_eq!(step("\"1s\"", 1).as_deref(), Some("\"1001ms\""));
    assert_eq!(step("0", -1), None);
}
