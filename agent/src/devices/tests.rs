use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use tucano_api::{ids::DeviceName, service::NodeDevices, settings::parse};
use tucano_oci_runtime::profile::Sandbox;
use tucano_testkit::{ROOT, needs};

use super::{spec::Description, *};

/// As a vendor's tool writes it for two cards: by index, by a name that stays, and all of them.
const CARDS: &str = "
cdiVersion: 0.5.0
kind: acme.com/gpu
devices:
- name: \"0\"
  containerEdits:
    deviceNodes:
    - {path: /dev/acme0, hostPath: /dev/null}
- name: CARD-aaaa
  containerEdits:
    deviceNodes:
    - {path: /dev/acme0, hostPath: /dev/null}
- name: \"1\"
  containerEdits:
    deviceNodes:
    - {path: /dev/acme1, hostPath: /dev/full, permissions: r, fileMode: 0440, gid: 44}
- name: all
  containerEdits:
    deviceNodes:
    - {path: /dev/acme0, hostPath: /dev/null}
    - {path: /dev/acme1, hostPath: /dev/full}
- name: gone
  containerEdits:
    deviceNodes:
    - {path: /dev/no-such-card}
containerEdits:
  env:
  - ACME_VISIBLE=void
  deviceNodes:
  - {path: /dev/acme-control, hostPath: /dev/zero}
  mounts:
  - {hostPath: /etc/hostname, containerPath: /usr/lib/acme, options: [ro, nosuid, nodev, bind]}
  additionalGids: [44, 0]
";

struct Node {
    directory: tempfile::TempDir,
    devices: Devices,
}

/// Descriptions in files that are root's; in directories `a` and `b`, of which `b` takes precedence.
fn described(files: &[(&str, &str)]) -> Node {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str| directory.path().join(name);
    for name in ["a", "b"] {
        fs::create_dir(of(name)).unwrap();
    }
    for (name, text) in files {
        fs::write(of(name), text).unwrap();
    }
    let limits = Limits {
        devices: 20,
        file: Bytes(20_000),
    };
    let paths = ["/dev/null", "/dev/no-such-node", "/etc/hostname"].map(PathBuf::from);
    Node {
        devices: Devices::new(vec![of("a"), of("b"), of("c")], paths.into(), limits),
        directory,
    }
}

fn process(requests: &str, assigned: &[&str]) -> DesiredProcess {
    let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\ndevices = [{requests}]");
    let assigned = assigned.iter().map(|text| {
        let (kind, name) = text.split_once('=').unwrap();
        AssignedDevice {
            kind: kind.parse().unwrap(),
            name: name.parse().unwrap(),
            units: [name.parse().unwrap()].into(),
        }
    });
    DesiredProcess {
        id: "a-1".parse().unwrap(),
        revision: tucano_api::ids::Revision(1),
        image: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        config: parse("a", &text).unwrap(),
        slot: None,
        volumes: Vec::new(),
        devices: assigned.collect(),
        run: None,
        address: None,
        kept: Default::default(),
    }
}

fn container() -> Spec {
    let sandbox = Sandbox {
        args: vec!["x".to_owned()],
        env: vec!["ACME_VISIBLE=all".to_owned(), "B=c".to_owned()],
        ..Sandbox::default()
    };
    sandbox.spec().unwrap()
}

fn given(node: &Node, requests: &str, assigned: &[&str]) -> Result<serde_json::Value, String> {
    let mut spec = container();
    let given = node.devices.give(&process(requests, assigned), &mut spec);
    given.map_err(|refused| refused.to_string())?;
    Ok(serde_json::to_value(spec).unwrap())
}

/// The devices by their names, with what each stands for.
fn units(devices: &NodeDevices) -> BTreeMap<String, Vec<String>> {
    let names = devices.values().flatten();
    let text = |units: &BTreeSet<DeviceName>| units.iter().map(ToString::to_string).collect();
    names
        .map(|(name, units)| (name.to_string(), text(units)))
        .collect()
}

fn expect(all: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let text = |units: &[&str]| units.iter().map(|it| (*it).to_owned()).collect();
    all.iter()
        .map(|(name, units)| ((*name).to_owned(), text(units)))
        .collect()
}

#[test]
fn names_of_one_device_and_of_all_are_told_by_their_nodes() {
    if !needs(&[ROOT]) {
        return;
    }
    let node = described(&[("a/acme.yaml", CARDS)]);
    let found = node.devices.find();
    let expected = expect(&[
        ("0", &["0"]),
        ("1", &["1"]),
        ("CARD-aaaa", &["0"]),
        ("all", &["0", "1"]),
    ]);
    assert_eq!(units(&found.devices), expected);
    assert_eq!(found.notes, [""; 0]);
    assert_eq!(found.paths, ["/dev/null"]);
}

#[test]
fn parts_of_one_card_are_devices_of_their_own() {
    let parts = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let names = [
        ("0:0", "/dev/card0 /dev/cap1"),
        ("0:1", "/dev/card0 /dev/cap2"),
        ("only-env", ""),
        ("more-env", ""),
        ("all", "/dev/card0 /dev/cap1 /dev/cap2"),
    ];
    let names = names.map(|(name, text)| (name.parse().unwrap(), parts(text)));
    let found = units::of(&[("acme.com/gpu".parse().unwrap(), names.into())].into());
    let expected = expect(&[
        ("0:0", &["0:0"]),
        ("0:1", &["0:1"]),
        ("all", &["0:0", "0:1"]),
        ("more-env", &["more-env"]),
        ("only-env", &["only-env"]),
    ]);
    assert_eq!(units(&found), expected);
}

#[test]
fn a_container_gets_what_the_description_says() {
    if !needs(&[ROOT]) {
        return;
    }
    let node = described(&[("a/acme.yaml", CARDS)]);
    let own = ["acme.com/gpu=0", "acme.com/gpu=1"];
    let spec = given(&node, "\"acme.com/gpu=2\", \"/dev/null\"", &own).unwrap();
    let devices = spec["linux"]["devices"].as_array().unwrap();
    let paths: Vec<_> = devices
        .iter()
        .map(|it| it["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["/dev/acme-control", "/dev/acme0", "/dev/acme1", "/dev/null"]
    );
    assert_eq!(devices[1]["minor"], 3);
    assert_eq!(
        devices[1]["fileMode"], 0o666,
        "any user of the container may open it"
    );
    assert_eq!(
        (&devices[2]["fileMode"], &devices[2]["gid"]),
        (&0o440.into(), &44.into())
    );
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    let access: Vec<_> = rules
        .iter()
        .map(|it| it["access"].as_str().unwrap())
        .collect();
    assert_eq!(access, ["rwm", "rwm", "r", "rw"]);
    let env: Vec<_> = spec["process"]["env"].as_array().unwrap().iter().collect();
    assert_eq!(env, ["B=c", "ACME_VISIBLE=void"]);
    let mounts = spec["mounts"].as_array().unwrap();
    assert_eq!(mounts.last().unwrap()["destination"], "/usr/lib/acme");
    assert_eq!(
        spec["process"]["user"]["additionalGids"],
        serde_json::json!([44])
    );
}

#[test]
fn what_a_process_does_not_get_is_refused_with_the_reason() {
    if !needs(&[ROOT]) {
        return;
    }
    let stale = "{\"cdiVersion\": \"0.6.0\", \"kind\": \"acme.com/old\", \"devices\": [{\"name\": \"x\", \"containerEdits\": {\"deviceNodes\": \
                 [{\"path\": \"/dev/null\", \"type\": \"c\", \"major\": 511, \"minor\": 3}]}}, {\"name\": \"y\", \"containerEdits\": {\"mounts\": \
                 [{\"hostPath\": \"/no/such/library\", \"containerPath\": \"/x\"}]}}]}";
    let node = described(&[("a/acme.yaml", CARDS), ("b/old.json", stale)]);
    for (requests, assigned, words) in [
        (
            "\"acme.com/gpu=1\"",
            &[][..],
            "does not say which acme.com/gpu=1",
        ),
        (
            "\"acme.com/gpu=1\"",
            &["acme.com/gpu=7"],
            "is not described on this node any more",
        ),
        (
            "\"acme.com/gpu=gone\"",
            &["acme.com/gpu=gone"],
            "/dev/no-such-card: No such file",
        ),
        ("\"/dev/zero\"", &[], "/dev/zero is not in `device_paths`"),
        ("\"/dev/no-such-node\"", &[], "No such file"),
        (
            "\"acme.com/old=x\"",
            &["acme.com/old=x"],
            "is c 1:3 and is described as another device",
        ),
        (
            "\"acme.com/old=y\"",
            &["acme.com/old=y"],
            "/no/such/library: No such file",
        ),
    ] {
        let refused = given(&node, requests, assigned).unwrap_err();
        assert!(refused.contains(words), "{requests}: {refused}");
    }
}

#[test]
fn descriptions_that_others_can_write_are_not_read() {
    if !needs(&[ROOT]) {
        return;
    }
    let mode =
        |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let node = described(&[("a/acme.yaml", CARDS)]);
    let root = node.directory.path();
    assert_eq!(node.devices.find().devices.len(), 1);
    mode(root.join("a/acme.yaml"), 0o664);
    let found = node.devices.find();
    assert!(
        found.devices.is_empty() && found.notes[0].contains("others than root can write"),
        "{found:?}"
    );
    mode(root.join("a/acme.yaml"), 0o644);
    mode(root.join("a"), 0o1777);
    let found = node.devices.find();
    assert!(
        found.devices.is_empty() && found.notes[0].contains("others than root can write"),
        "{found:?}"
    );
    mode(root.join("a"), 0o755);
    std::os::unix::fs::chown(root.join("a/acme.yaml"), Some(1), None).unwrap();
    assert!(node.devices.find().devices.is_empty());
    std::os::unix::fs::chown(root.join("a/acme.yaml"), Some(0), None).unwrap();
    // A link to what another one can write.
    fs::rename(root.join("a/acme.yaml"), root.join("elsewhere.yaml")).unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere.yaml"), root.join("a/link.yaml")).unwrap();
    assert_eq!(node.devices.find().devices.len(), 1);
    mode(root.join("elsewhere.yaml"), 0o666);
    assert!(node.devices.find().devices.is_empty());
}

#[test]
fn the_later_directory_counts_and_two_files_of_one_do_not() {
    if !needs(&[ROOT]) {
        return;
    }
    let one = |path: &str| {
        format!(
            "cdiVersion: 0.6.0\nkind: acme.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {{deviceNodes: [{{path: {path}, hostPath: /dev/null}}]}}\n"
        )
    };
    let node = described(&[("a/old.yaml", CARDS), ("b/new.yaml", &one("/dev/new"))]);
    let spec = given(&node, "\"acme.com/gpu=1\"", &["acme.com/gpu=0"]).unwrap();
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/new");
    assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
    fs::write(
        node.directory.path().join("b/again.yaml"),
        one("/dev/again"),
    )
    .unwrap();
    let found = node.devices.find();
    assert!(
        found.notes[0].contains("0 of acme.com/gpu is described twice"),
        "{found:?}"
    );
    let refused = given(&node, "\"acme.com/gpu=1\"", &["acme.com/gpu=0"]).unwrap_err();
    assert!(refused.contains("is not described"), "{refused}");
    fs::remove_file(node.directory.path().join("b/again.yaml")).unwrap();
    assert_eq!(
        node.devices.find().notes,
        [""; 0],
        "files are read again when they change"
    );
}

#[test]
fn what_is_read_is_bounded_and_the_limit_names_itself() {
    if !needs(&[ROOT]) {
        return;
    }
    let device = |number| format!("{{\"name\": \"d{number}\"}}");
    let many = |count: usize| {
        let all: Vec<String> = (0..count).map(device).collect();
        format!(
            "{{\"cdiVersion\": \"0.6.0\", \"kind\": \"acme.com/x\", \"devices\": [{}]}}",
            all.join(",")
        )
    };
    let node = described(&[("a/many.json", &many(20))]);
    assert_eq!(units(&node.devices.find().devices).len(), 20);
    let node = described(&[("a/many.json", &many(21))]);
    assert!(node.devices.find().notes[0].contains("limits.devices"));
    let node = described(&[("a/large.json", &" ".repeat(20_001))]);
    assert!(node.devices.find().notes[0].contains("limits.cdi_file"));
}

#[test]
fn what_is_no_description_is_refused_and_not_read_in_part() {
    let with = |more: &str| {
        format!("cdiVersion: 0.6.0\nkind: acme.com/gpu\ndevices:\n- name: \"0\"\n{more}")
    };
    for (text, words) in [
        ("kind: [", "no YAML"),
        ("kind: a.b/c\nkind: a.b/c", "second time"),
        (&with("").replace("0.6.0", "0.2.0"), "0.3 and later"),
        (&with("").replace("acme.com/gpu", "gpu"), "device kind"),
        (&with("").replace("\"0\"", "../x"), "device name"),
        (&with("containerEdits: {intelRdt: {closID: x}}"), "intelRdt"),
        (
            &with("containerEdits: {netDevices: [{hostInterfaceName: eth0, name: eth0}]}"),
            "netDevices",
        ),
        (&with("containerEdits: {env: [X]}"), "is no variable"),
        (
            &with("containerEdits: {deviceNodes: [{path: dev/x}]}"),
            "is not an absolute path",
        ),
        (
            &with("containerEdits: {deviceNodes: [{path: /dev/x, permissions: rwx}]}"),
            "they are of rwm",
        ),
        (
            &with("containerEdits: {deviceNodes: [{path: /dev/x, type: p}]}"),
            "has the type",
        ),
        (
            &with("containerEdits: {mounts: [{hostPath: x, containerPath: /x}]}"),
            "is not an absolute path",
        ),
        (
            &with("containerEdits: {hooks: [{hookName: createContainer, path: /x}]}"),
            "it has hooks",
        ),
    ] {
        let refused = Description::parse(text, false).unwrap_err();
        assert!(refused.contains(words), "{text}: {refused}");
    }
    let anchors = with("  containerEdits: &e {env: [A=b]}\n- {name: x, containerEdits: *e}");
    assert_eq!(
        Description::parse(&anchors, false).unwrap().devices.len(),
        2
    );
}
