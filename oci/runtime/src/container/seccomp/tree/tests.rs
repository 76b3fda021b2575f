use super::*;

const DEFAULT: u32 = 7;

const UNLISTED: Unlisted = Unlisted {
    verdict: DEFAULT,
    newer: None,
};

/// Interprets a program for a number.
fn run(program: &[sock_filter], number: u32) -> u32 {
    let mut at = 0;
    loop {
        let one = &program[at];
        let jump = |holds| usize::from(if holds { one.jt } else { one.jf });
        at += 1 + match one.code {
            LOAD => 0,
            JUMP => one.k as usize,
            IF_EQUAL => jump(number == one.k),
            IF_NOT_LESS => jump(number >= one.k),
            _ => return one.k,
        };
    }
}

fn check(verdicts: &BTreeMap<u32, u32>) {
    let program = search(UNLISTED, verdicts, &[]);
    for number in 0..1000 {
        let expected = verdicts.get(&number).copied().unwrap_or(DEFAULT);
        assert_eq!(run(&program, number), expected, "{number}");
    }
    assert_eq!(run(&program, u32::MAX), DEFAULT);
}

#[test]
fn every_number_has_its_answer() {
    check(&BTreeMap::new());
    check(&[(0, 3)].into());
    check(&[(0, 3), (1, 3), (2, 2), (3, DEFAULT), (5, 3), (6, 3)].into());
}

#[test]
fn numbers_newer_than_the_list_have_a_verdict_of_their_own() {
    let unlisted = Unlisted {
        newer: Some((10, 9)),
        ..UNLISTED
    };
    for last in [3, DEFAULT] {
        let program = search(unlisted, &[(1, 3), (9, last)].into(), &[]);
        let found = [0, 1, 8, 9, 10, 11, u32::MAX].map(|number| run(&program, number));
        assert_eq!(found, [DEFAULT, 3, DEFAULT, last, 9, 9, 9]);
    }
}

#[test]
fn far_branches_are_reached_too() {
    check(&(0..800).map(|number| (number, 2 + number % 3)).collect());
}

#[test]
fn neighbours_take_no_comparisons() {
    let verdicts = (10..300).map(|number| (number, 2)).collect();
    let program = search(UNLISTED, &verdicts, &[]);
    assert_eq!(program.len(), 1 + 2 + 3);
}

#[test]
fn the_first_program_that_does_not_allow_decides() {
    let unless =
        |number: u32, verdict: u32| only(&[number], ALLOW, vec![instruction(RETURN, verdict)]);
    let others = [unless(4, 20), unless(5, 30), unless(4, 40)];
    let verdicts = (3..7).map(|number| (number, FALL_THROUGH)).collect();
    let program = search(UNLISTED, &verdicts, &others);
    let evaluate: Vec<_> = (2..8).map(|number| run(&program, number)).collect();
    assert_eq!(evaluate, [DEFAULT, ALLOW, 20, 30, ALLOW, DEFAULT]);
}

#[test]
fn a_program_is_restricted_to_its_numbers() {
    let inner = vec![instruction(RETURN, 1)];
    let program = only(&[3, 9, 40], 0, inner);
    for number in 0..50 {
        let expected = u32::from([3, 9, 40].contains(&number));
        assert_eq!(run(&program, number), expected, "{number}");
    }
}
