//! The help of every program for root, and the errors of the controller's and the agent's configuration.
//! `INSTA_UPDATE=always` accepts a change.

use std::{fmt::Write, path::Path};

use clap::Command;

/// The help of a command and of those below it.
fn help(command: &mut Command, text: &mut String) {
    command.build();
    writeln!(text, "{}", command.render_long_help()).unwrap();
    for below in command.get_subcommands_mut() {
        if below.get_name() != "help" && !below.is_hide_set() {
            writeln!(text, "---- {}", below.get_name()).unwrap();
            help(below, text);
        }
    }
}

#[test]
fn help_of_the_programs_for_root() {
    for program in super::daemons() {
        let name = program.get_name().to_owned();
        let mut text = String::new();
        help(&mut program.term_width(100), &mut text);
        insta::assert_snapshot!(format!("help_of_{name}"), text);
    }
}

/// Each text, and what is said about it.
fn reports(texts: &[&str], report: impl Fn(&str) -> Option<String>) -> String {
    let reports = texts
        .iter()
        .map(|text| report(text).unwrap_or_else(|| panic!("{text:?} is valid")));
    reports.collect::<Vec<_>>().join("\n\n")
}

const TOPOLOGY: &str = "[[topology]]\nkind = \"ctl\"\nip = \"127.0.0.1\"\n";

#[test]
fn errors_of_the_controllers_configuration() {
    let changes = [
        "lese = \"6s\"\n",
        "lease = \"1ms\"\ndrain = \"2h\"\nrevisions_kept = 0\n",
        "lease = 6\n",
        "domain = \"Example\"\n",
        "[api]\nlisten = [\"0.0.0.0:7070\"]\n",
        "[api]\nlisten = [\"here\"]\n",
        "[api]\nnames = [\"a b\"]\n",
        "[balancer]\nlisten = [\"localhost\"]\n",
        "[alerts]\nwebhooks = [\"mailto:a\"]\n",
        "[limits]\nservices = 0\nconnections = 1\nbody_idle = \"1ms\"\n",
        "[[registry]]\naddress = \"a\"\n",
        "token_file = \"absent\"\n",
    ];
    let texts: Vec<_> = changes
        .iter()
        .map(|change| format!("{change}{TOPOLOGY}"))
        .collect();
    let topologies = [
        "",
        "[[topology]]\nkind = \"worker\"\nip = \"10.0.0.1\"\n",
        "[[topology]]\nkind = \"controller\"\nip = \"10.0.0.1\"\n",
        "[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.256\"\n",
        "[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.1\"\n[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.2\"\n",
        "[[topology]]\nkind = \"ctl\"\nip = \"10.0.0.1\"\n[[topology]]\nkind = \"worker\"\nip = \"10.0.0.1\"\n",
        "{}",
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).chain(topologies).collect();
    insta::assert_snapshot!(reports(&texts, |text| {
        let parsed =
            tucano_ctl::config_mgr::Config::parse("ctl.toml", Path::new("/etc/tucano"), text);
        parsed.err().map(|errors| errors.report())
    }));
}

#[test]
fn errors_of_the_agents_configuration() {
    let base = "controller = \"http://127.0.0.1:7070\"\nlisten = \"127.0.0.1:7071\"\n";
    let changes = [
        "lisen = \"0.0.0.0:1\"\n",
        "publish_interval = \"1ms\"\nbridge = \"a b\"\ndata_dir = \"here\"\n",
        "tls = \"maybe\"\n",
        "token = \"a\"\ntoken_file = \"b\"\n",
        "subnet = \"172.31.0.0\"\n",
        "ports = \"80\"\n",
        "cgroup = \"../x\"\n",
        "dns = [\"127.0.0.53\"]\n",
        "[images]\nunpack = \"tar\"\n",
        "[logs]\nfiles = 0\n",
        "[limits]\nprocesses = 0\nstarts = 5000\nhandshake_timeout = \"1ms\"\n",
    ];
    let texts: Vec<_> = changes
        .iter()
        .map(|change| format!("{base}{change}"))
        .collect();
    let others = [
        "",
        "controller = \"ctl.example.org\"\n",
        "controller = \"https://10.0.0.1:7070\"\ntls = \"off\"\ntoken = \"a\"\n",
        "controller = \"https://10.0.0.1:7070\"\n",
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).chain(others).collect();
    insta::assert_snapshot!(reports(&texts, |text| {
        type Settings = tucano_agent::settings::Settings;
        let parsed = tucano_api::settings::parse_all::<Settings>("agent.toml", text);
        parsed.err().map(|errors| errors.report())
    }));
}
