//! Answers that depend on the system call's number alone, as a search tree in BPF. When a filter is installed, the kernel runs it
//! for every number there is, to know which are always allowed: a list of comparisons makes that the dearest step of a start.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use super::ALLOW;

/// Classic BPF (`<linux/bpf_common.h>`): load a word, jump, jump if not less, return.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` has the number.
const NUMBER: u32 = 0;

/// Stands for an answer of other programs; the kernel has none that is this.
pub(super) const ELSEWHERE: u32 = 1;

/// Looks the number up, and answers. Numbers whose answer is [`ELSEWHERE`] pass through the other programs, of which the first
/// that does not allow the call answers.
pub(super) fn search(
    default: u32,
    answers: &BTreeMap<u32, u32>,
    others: &[Vec<sock_filter>],
) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD, NUMBER)];
    program.extend(branch(&runs(default, answers)));
    leap_to_end(&mut program, ELSEWHERE);
    for (index, other) in others.iter().enumerate() {
        let mut other = other.clone();
        if index + 1 < others.len() {
            leap_to_end(&mut other, ALLOW);
        }
        program.extend(other);
    }
    program
}

/// Has what follows the program decide where it answers this.
fn leap_to_end(program: &mut [sock_filter], answer: u32) {
    let end = program.len();
    let is_answer = |one: &sock_filter| one.code == RETURN && one.k == answer;
    for (at, one) in program.iter_mut().enumerate() {
        if is_answer(one) {
            *one = instruction(JUMP, distance(at, end));
        }
    }
}

/// The program for these numbers alone; all others are answered `otherwise`.
pub(super) fn only(numbers: &[u32], otherwise: u32, program: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut all = vec![instruction(LOAD, NUMBER)];
    for number in numbers {
        // One of them leaps over the jump to the next comparison, and so do not the others.
        all.push(sock_filter {
            jf: 1,
            ..instruction(IF_EQUAL, *number)
        });
        all.push(instruction(JUMP, 0));
    }
    let begin = all.len() + 1;
    for (at, one) in all
        .iter_mut()
        .enumerate()
        .filter(|(_, one)| one.code == JUMP)
    {
        one.k = distance(at, begin);
    }
    all.push(instruction(RETURN, otherwise));
    all.extend(program);
    all
}

/// First number and answer of each run of neighbours that are answered alike.
fn runs(default: u32, answers: &BTreeMap<u32, u32>) -> Vec<(u32, u32)> {
    let mut runs = vec![(0, default)];
    let mut begin = |number, answer| match runs.last_mut() {
        Some(last) if last.1 == answer => {}
        // One that would be empty.
        Some(last) if last.0 == number => last.1 = answer,
        _ => runs.push((number, answer)),
    };
    let mut next = 0;
    for (number, answer) in answers {
        if *number > next {
            begin(next, default);
        }
        begin(*number, *answer);
        next = number + 1;
    }
    begin(next, default);
    runs
}

fn branch(runs: &[(u32, u32)]) -> Vec<sock_filter> {
    if let [(_, answer)] = runs {
        return vec![instruction(RETURN, *answer)];
    }
    let (below, above) = runs.split_at(runs.len() / 2);
    fork(above[0].0, branch(below), branch(above))
}

/// Where numbers from this one on are told apart from those below.
fn fork(number: u32, below: Vec<sock_filter>, above: Vec<sock_filter>) -> Vec<sock_filter> {
    let compare = instruction(IF_NOT_LESS, number);
    let mut program = match u8::try_from(below.len()) {
        Ok(jt) => vec![sock_filter { jt, ..compare }],
        Err(_) => vec![
            sock_filter { jf: 1, ..compare },
            instruction(JUMP, distance(0, below.len() + 1)),
        ],
    };
    program.extend(below);
    program.extend(above);
    program
}

/// From behind the instruction at `at`. Programs are far shorter than what a number holds.
fn distance(at: usize, to: usize) -> u32 {
    u32::try_from(to - at - 1).unwrap_or(u32::MAX)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u32 = 7;

    /// What the kernel makes of such a program for a system call of this number.
    fn run(program: &[sock_filter], number: u32) -> u32 {
        let mut at = 0;
        loop {
            let one = &program[at];
            let leap = |holds| usize::from(if holds { one.jt } else { one.jf });
            at += 1 + match one.code {
                LOAD => 0,
                JUMP => one.k as usize,
                IF_EQUAL => leap(number == one.k),
                IF_NOT_LESS => leap(number >= one.k),
                _ => return one.k,
            };
        }
    }

    fn check(answers: &BTreeMap<u32, u32>) {
        let program = search(DEFAULT, answers, &[]);
        for number in 0..1000 {
            let expected = answers.get(&number).copied().unwrap_or(DEFAULT);
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
    fn far_branches_are_reached_too() {
        check(&(0..800).map(|number| (number, 2 + number % 3)).collect());
    }

    #[test]
    fn neighbours_take_no_comparisons() {
        let answers = (10..300).map(|number| (number, 2)).collect();
        let program = search(DEFAULT, &answers, &[]);
        assert_eq!(program.len(), 1 + 2 + 3);
    }

    #[test]
    fn of_other_programs_the_first_that_does_not_allow_answers() {
        let unless =
            |number: u32, answer: u32| only(&[number], ALLOW, vec![instruction(RETURN, answer)]);
        let others = [unless(4, 20), unless(5, 30), unless(4, 40)];
        let answers = (3..7).map(|number| (number, ELSEWHERE)).collect();
        let program = search(DEFAULT, &answers, &others);
        let answered: Vec<_> = (2..8).map(|number| run(&program, number)).collect();
        assert_eq!(answered, [DEFAULT, ALLOW, 20, 30, ALLOW, DEFAULT]);
    }

    #[test]
    fn a_program_is_for_some_numbers_alone() {
        let inner = vec![instruction(RETURN, 1)];
        let program = only(&[3, 9, 40], 0, inner);
        for number in 0..50 {
            let expected = u32::from([3, 9, 40].contains(&number));
            assert_eq!(run(&program, number), expected, "{number}");
        }
    }
}
