use super::*;

fn parsed(line: &str) -> Result<Task> {
    parse(
        line.split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned),
    )
}

fn refusal(line: &str) -> String {
    parsed(line).unwrap_err().to_string()
}

#[test]
fn the_demo_takes_ports() {
    assert_eq!(
        parsed("demo --once --api-port 7171 --balancer-port=81").unwrap(),
        Task::Demo(Demo {
            once: true,
            api_port: Some(7171),
            balancer_port: Some(81),
        })
    );
    assert_eq!(
        refusal("demo --api-port 0"),
        "--api-port takes a port from 1 to 65535, not `0`"
    );
    assert!(refusal("demo --api-port").contains("takes a port"));
    assert_eq!(refusal("demo --twice"), "unexpected argument `--twice`");
}

#[test]
fn arguments_of_test_are_cargos() {
    let Task::Test(test) = parsed("test --long -p tucano_api --test=x name -- -p y").unwrap()
    else {
        panic!("test is another task");
    };
    assert!(test.long);
    assert_eq!(test.packages, ["tucano_api"]);
    assert_eq!(test.targets, ["x"]);
    assert_eq!(
        test.cargo,
        ["-p", "tucano_api", "--test=x", "name", "--", "-p", "y"]
    );
    assert_eq!(refusal("test -p"), "-p takes a name");
}

#[test]
fn arguments_of_other_tasks_are_passed_on() {
    let Task::Other { name, arguments } = parsed("package --profile dev").unwrap() else {
        panic!("package is another task");
    };
    assert_eq!((name, arguments.len()), ("package", 2));
    assert_eq!(refusal("dance"), "there is no task `dance`");
    assert_eq!(refusal("check all"), "unexpected argument `all`");
}

#[test]
fn every_task_is_in_the_help() {
    for name in OTHERS.into_iter().chain(["demo", "test", "check", "setup"]) {
        assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
    }
    assert_eq!(parsed("").unwrap(), Task::Help);
    assert_eq!(parsed("test --help").unwrap(), Task::Help);
}
