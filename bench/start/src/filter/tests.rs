use super::*;

/// Interprets a filter.
fn answer(program: &[u8], number: u32) -> u32 {
    let at = |index: usize| &program[index * 8..index * 8 + 8];
    let mut next = 0;
    loop {
        let one = at(next);
        let operand = u32::from_ne_bytes([one[4], one[5], one[6], one[7]]);
        let jump = |yes: bool| usize::from(if yes { one[2] } else { one[3] });
        next += 1 + match u16::from_ne_bytes([one[0], one[1]]) {
            LOAD => 0,
            IF_EQUAL => jump(number == operand),
            IF_NOT_LESS => jump(number >= operand),
            _ => return operand,
        };
    }
}

#[test]
fn both_allow_the_same() {
    let allowed: BTreeSet<u32> = [0, 1, 2, 5, 7, 8, 60, 300].into();
    let (list, tree) = (list(&allowed).unwrap(), tree(&allowed).unwrap());
    for number in 0..400 {
        let expected = if allowed.contains(&number) {
            ALLOW
        } else {
            ERRNO_EPERM
        };
        assert_eq!(answer(&list, number), expected, "{number}");
        assert_eq!(answer(&tree, number), expected, "{number}");
    }
    assert!(tree.len() < list.len() * 2);
}
