//! The Vagrantfile: that Vagrant takes it, and what its environment variables do.

use std::process::{Command, Output};

use tempfile::TempDir;
use tucano_testkit::{needs, tool};
use tucano_tests::images::{sample, workspace};

#[test]
fn vagrant_takes_the_vagrantfile_with_every_setting() {
    if !needs(&[tool("ruby"), tool("vagrant")]) {
        return;
    }
    let syntax = run(&["ruby", "-c", "Vagrantfile"], &[]);
    assert!(syntax.status.success(), "{syntax:?}");
    for settings in [
        &[][..],
        &[("TUCANO_WORKERS", "5"), ("TUCANO_CPUS", "4")],
        &[("TUCANO_MEMORY", "4096"), ("TUCANO_NET", "10.20.30")],
        &[("TUCANO_BOX", "some/box")],
    ] {
        let output = run(&["vagrant", "validate", "--ignore-provider"], settings);
        assert!(output.status.success(), "{settings:?}: {output:?}");
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    if !needs(&[tool("ruby")]) {
        return;
    }
    for (name, value) in [
        ("TUCANO_WORKERS", "0"),
        ("TUCANO_WORKERS", "51"),
        ("TUCANO_WORKERS", "some"),
        ("TUCANO_CPUS", "-1"),
        ("TUCANO_MEMORY", "1G"),
        ("TUCANO_NET", "10.20"),
        ("TUCANO_NET", "10.20.300"),
        ("TUCANO_NET", "10.20.30.0"),
    ] {
        let output = record(&[(name, value)]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}={value}");
        assert!(
            errors.contains(&format!("{name}={value}: give")),
            "{errors}"
        );
    }
}

#[test]
fn settings_choose_number_and_size_of_machines() {
    if !needs(&[tool("ruby")]) {
        return;
    }
    let output = record(&[
        ("TUCANO_WORKERS", "3"),
        ("TUCANO_CPUS", "2"),
        ("TUCANO_MEMORY", "2048"),
        ("TUCANO_NET", "10.20.30"),
        ("TUCANO_BOX", "some/box"),
        ("TUCANO_IMAGE", sample("hello").to_str().unwrap()),
    ]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let named = |name: &str| lines.iter().filter(|line| line.contains(name)).count();
    // Workers and the controller.
    assert_eq!(named(".vm.hostname: "), 4, "{text}");
    assert!(!text.contains("192.168"), "{text}");
    for line in [
        "v2.vm.box: some/box",
        "v2.vm.provider(libvirt).override.vm.box: some/box",
        "v2.vm.define(w3).vm.network: private_network {:ip=>\"10.20.30.13\"}",
        "v2.vm.define(ctl).vm.network: private_network {:ip=>\"10.20.30.10\"}",
        "v2.vm.define(w1).vm.provider(virtualbox).cpus: 2",
        "v2.vm.define(w1).vm.provider(virtualbox).memory: 2048",
        "v2.vm.define(w2).vm.provider(libvirt).cpus: 2",
        "v2.vm.define(w2).vm.provider(libvirt).memory: 2048",
        "v2.vm.define(w3).vm.provider(parallels).cpus: 2",
        "v2.vm.define(w3).vm.provider(parallels).memory: 2048",
        "v2.vm.define(ctl).vm.provider(vmware_desktop).vmx.[]: numvcpus 2",
        "v2.vm.define(ctl).vm.provider(vmware_desktop).vmx.[]: memsize 2048",
    ] {
        assert!(lines.contains(&line), "{line} is missing in {text}");
    }
    let everyone = "\"--worker\", \"w1=10.20.30.11\", \"--worker\", \"w2=10.20.30.12\", \"--worker\", \"w3=10.20.30.13\"";
    assert!(text.contains(everyone), "{text}");
}

#[test]
fn the_agent_token_is_random_and_readable_by_its_owner_only() {
    if !needs(&[tool("ruby")]) {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let [one, other] = [(); 2].map(|()| {
        let directory = tempfile::tempdir().unwrap();
        assert!(record_in(&directory, &[]).status.success());
        let path = directory.path().join("tucano/agent-token");
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = std::fs::read_to_string(&path).unwrap();
        // The next run finds it.
        assert!(record_in(&directory, &[]).status.success());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
        token
    });
    assert_eq!(one.len(), 64);
    assert_ne!(one, other);
}

#[test]
fn the_controller_accepts_the_generated_authority() {
    if !needs(&[tool("ruby")]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(record_in(&directory, &[]).status.success());
    let place = directory.path().join("tucano");
    let certificate = std::fs::read_to_string(place.join("ca.pem")).unwrap();
    let authority = tucano_tls::Authority::open(&place).unwrap();
    assert_eq!(authority.pem(), certificate);
    // What it issues is vouched for.
    let names = [tucano_tls::authority::Name::parse("10.0.0.1").unwrap()];
    let now = std::time::SystemTime::now();
    let leaf = authority
        .issue(
            &tucano_tls::Identity::Controller,
            &names,
            tucano_tls::Validity::from(now),
        )
        .unwrap();
    let trust = tucano_tls::Trust::from_pem(&certificate).unwrap();
    trust.verify(&leaf, "10.0.0.1", now).unwrap();
}

fn record(settings: &[(&str, &str)]) -> Output {
    record_in(&tempfile::tempdir().unwrap(), settings)
}

/// What the Vagrantfile configures, evaluated without Vagrant.
fn record_in(directory: &TempDir, settings: &[(&str, &str)]) -> Output {
    let recorder = workspace().join("tests/vagrant/record.rb");
    run_in(
        directory,
        &["ruby", recorder.to_str().unwrap(), "Vagrantfile"],
        settings,
    )
}

fn run(command: &[&str], settings: &[(&str, &str)]) -> Output {
    run_in(&tempfile::tempdir().unwrap(), command, settings)
}

/// Runs a command beside the Vagrantfile; what Vagrant keeps is kept in `directory`.
fn run_in(directory: &TempDir, command: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(command[0])
        .args(&command[1..])
        .current_dir(workspace().join("vagrant"))
        .env("VAGRANT_DOTFILE_PATH", directory.path())
        .env("VAGRANT_HOME", directory.path().join("home"))
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}
