use super::*;

const COLUMNS: [Column; 4] = [
    Column {
        name: "NAME",
        expendable: 0,
    },
    Column {
        name: "MEMORY",
        expendable: 1,
    },
    Column {
        name: "PORT",
        expendable: 2,
    },
    Column {
        name: "WHY",
        expendable: 0,
    },
];

fn table(why: &str) -> Table<'static> {
    let mut table = Table::new(&COLUMNS);
    table.push(
        ["hello-1", "12.0 MiB/64.0 MiB", "20000", why]
            .map(Cell::new)
            .into(),
    );
    table
}

#[test]
fn without_a_terminal_nothing_is_left_out() {
    let expected = "\
NAME     MEMORY             PORT   WHY
hello-1  12.0 MiB/64.0 MiB  20000  no answer";
    assert_eq!(table("no answer").render(None, false), expected);
}

#[test]
fn columns_without_room_are_left_out_least_important_first() {
    let expected = "\
NAME     MEMORY             WHY
hello-1  12.0 MiB/64.0 MiB";
    assert_eq!(table("").render(Some(33), false), expected);
    assert_eq!(table("").render(Some(20), false), "NAME     WHY\nhello-1");
    assert_eq!(table("").render(Some(1), false), "NAME\nhello-1");
}

#[test]
fn the_last_column_continues_between_words() {
    let why = "the probe of port 8080 was refused for the last 30 seconds";
    let expected = "\
NAME     MEMORY             PORT   WHY
hello-1  12.0 MiB/64.0 MiB  20000  the probe of port 8080 was
                                   refused for the last 30
                                   seconds";
    assert_eq!(table(why).render(Some(62), false), expected);
    let expected = "\
NAME     MEMORY             PORT   WHY
hello-1  12.0 MiB/64.0 MiB  20000
    the probe of port 8080 was refused for
    the last 30 seconds";
    assert_eq!(table(why).render(Some(44), false), expected);
}

#[test]
fn lines_are_never_wider_than_the_terminal_if_the_fields_allow_it() {
    for width in 20..100 {
        let text =
            table("a b c d e f g h i j k l m n o p q r s t u v w").render(Some(width), false);
        assert!(
            text.lines().all(|line| line.chars().count() <= width),
            "{width}: {text}"
        );
    }
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let text = table("\u{1b}[2J\r\nx").render(None, false);
    assert!(
        !text.contains('\u{1b}') && text.lines().count() == 2,
        "{text}"
    );
}
